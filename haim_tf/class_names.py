"""Classes by name: labels from names, and the labels of data from those of a model."""

from __future__ import annotations

import contextlib
import difflib
import functools
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.models import HierarchicalModel

# Labels as they are handed over: one or several, integers or names.
Labels = int | str | Sequence[int | str] | np.ndarray

# How many names an error shows.
SHOWN = 5


def find_class(name: str, class_names: Sequence[str] | None) -> int:
    """The label that a name means.

    Args:
        name: a class' whole name, or, of a name of several parts with commas between them ("goldfish,
            Carassius auratus"), any part; capitals matter only where names differ in nothing else.
        class_names: the names of the labels 0, 1, ..., or `None` where nothing is known of them.

    Raises:
        ValueError: no class is called so, or several are; it shows names near to it.

    Example:
        >>> find_class("Carassius auratus", ["tench", "goldfish, Carassius auratus"])
        1
    """
    if not class_names:
        raise ValueError(f"the model's classes have no names: labels must be integers, got {str(name)!r}")
    wanted = _plain(name)
    found = [label for label, known in enumerate(class_names) if _plain(known) == wanted]
    if len(found) > 1:  # Capitals matter where names differ in nothing else.
        found = [label for label in found if str(class_names[label]) == str(name)] or found
    if not found:
        found = [label for label, known in enumerate(class_names) if wanted in _parts_of(known)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} must be the name of one class, got that of the labels {found}")
    raise ValueError(f"there is no class {name!r}{near(name, class_names)}")


def names_of(class_names: Sequence[str]) -> list[str]:
    """Names of classes as a list of str, from a list, tuple or array of texts.

    Raises:
        ValueError: something else, such as one text, which would be taken letter by letter.

    Example:
        >>> names_of(np.array(["tench", "goldfish"]))
        ['tench', 'goldfish']
    """
    listed = isinstance(class_names, (list, tuple, np.ndarray))
    if not listed or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"class_names must be a list of texts, got {class_names!r:.60}")
    return [str(name) for name in class_names]


def near(name: str, class_names: Sequence[str]) -> str:
    """What an error says of the names that are like one: "; did you mean ...?" or the first few."""
    parts = {part: known for known in class_names for part in (*_parts_of(known), _plain(known))}
    close = difflib.get_close_matches(_plain(name), parts, n=SHOWN, cutoff=0.6)
    close += [part for part in parts if _plain(name) in part]
    if close:
        names = list(dict.fromkeys(parts[part] for part in close))[:SHOWN]
        return f"; did you mean {' or '.join(map(repr, names))}?"
    shown = ", ".join(map(repr, class_names[:SHOWN]))
    return f"; the classes are {shown}{', ...' if len(class_names) > SHOWN else ''}"


def labels_of(labels: Labels, class_names: Sequence[str] | None) -> np.ndarray:
    """Labels as an integer array, where they may be names: one, a list or array of them, or integers.

    Raises:
        ValueError: a name that is no class', names where there are none.
    """
    if isinstance(labels, str):
        return np.asarray(find_class(labels, class_names), "int32")
    given = np.asarray(labels)
    if not given.size:  # NumPy takes an empty list for one of floats.
        return given.astype("int32")
    if given.dtype.kind in "US":
        # Once more, for NumPy makes texts of the integers among them.
        given = np.asarray(labels, object)
    if given.dtype != object:
        return given

    @functools.cache  # A name may stand there many times.
    def find(name):
        return find_class(name.decode(errors="replace") if isinstance(name, bytes) else name, class_names)

    found = [_label_of(label, find) for label in given.ravel()]
    return np.asarray(found).reshape(given.shape)


def _label_of(label, find):
    """One label, an int, from one or from a name, str or bytes, that `find` knows."""
    if isinstance(label, (str, bytes)):
        return find(label)
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return int(label)
    raise ValueError(f"labels must be integers or names of classes, got {label!r:.60}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def relabelled(
    images: ImageData, model: HierarchicalModel, say: Callable[[str], object] = _tell
) -> ImageData:
    """An `ImageData` whose labels are those of the model's classes of the same names.

    Where either side has no names, labels stand for each other by their numbers; where the other has some,
    `say` is told so.

    Args:
        images: an `ImageData`.
        model: a `HierarchicalModel`.
        say: called with a sentence worth knowing; by default it goes to standard error.

    Returns:
        The same images, with labels and class names of the model; as they are where the model takes no labels
        or the data has none.

    Raises:
        ValueError: a class of the data that the model does not have; a number that is none of its labels.
    """
    if images.labels is None or model.num_classes is None:
        return images
    if images.class_names is None or model.class_names is None:
        if images.labels.max() >= model.num_classes:
            raise ValueError(
                f"{images.name}: labels must lie in 0..{model.num_classes - 1}, got {images.labels.max()}"
            )
        if images.class_names is None and model.class_names is None:
            return images
        who = "the model" if model.class_names is None else images.name
        say(f"{who} has no class names: labels stand for each other by their numbers")
        return images.with_labels(images.labels, model.class_names)
    return _by_name(images, model.class_names, "the model")


def labelled_as(images: ImageData, others: ImageData) -> ImageData:
    """Images whose labels are those of the classes of the same names of others; by their numbers where either
    has no names.

    Raises:
        ValueError: a class that the others do not have.

    Example:
        >>> images = np.zeros((1, 4, 4, 1), "uint8")
        >>> here = ImageData(images, [0], class_names=["cat", "dog"])
        >>> labelled_as(here, ImageData(images, [0], class_names=["dog", "cat"])).labels
        array([1], dtype=int32)
    """
    if images.labels is None or images.class_names is None or others.class_names is None:
        return images
    return _by_name(images, others.class_names, others.name)


def _by_name(images, class_names, whose):
    """The images with labels of those names, which are those of `whose` classes."""
    if list(images.class_names) == list(class_names):
        return images
    used = np.unique(images.labels)
    mapping = np.zeros(len(images.class_names), "int32")
    for label in used:
        try:
            mapping[label] = _same_class(images.class_names[label], class_names)
        except ValueError as error:
            raise ValueError(f"{images.name} does not fit {whose}: {error}") from None
    taken = {}
    for label in used:
        other = taken.setdefault(int(mapping[label]), int(label))
        if other != label:
            raise ValueError(
                f"{images.name}: the classes {images.class_names[other]!r} and {images.class_names[label]!r} "
                f"are both {class_names[mapping[label]]!r} of {whose}"
            )
    return images.with_labels(mapping[images.labels], class_names)


def _same_class(name, class_names):
    """The label of a class that another set calls `name`; either side may have more names for it, with commas
    between them."""
    try:
        return find_class(name, class_names)
    except ValueError:
        for part in str(name).split(","):
            with contextlib.suppress(ValueError):
                return find_class(part, class_names)
        raise


def _plain(name):
    # One folder's name differs between systems in how an accent is written.
    return unicodedata.normalize("NFC", " ".join(str(name).split()).casefold())


def _parts_of(name):
    return [_plain(part) for part in str(name).split(",")]
