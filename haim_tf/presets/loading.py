"""A model from a preset folder."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from haim_tf.checks import is_about_arguments, require_int
from haim_tf.presets import weights_file
from haim_tf.presets.folder import CONFIG, MODEL, WEIGHTS, find, read, sampling_of, weights_path
from haim_tf.registered import registered_class

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel


def load(
    name_or_folder: str | os.PathLike,
    weights: bool | Literal["auto"] = "auto",
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> HierarchicalModel:
    """Loads a model of the zoo, from a preset folder, or from the Hugging Face hub.

    Args:
        name_or_folder: a name that `list_models()` gives; a folder that `save_to_preset` wrote; or such a
            folder on the hub, `"hf://owner/name"`, or `"hf://owner/name@revision"` for one branch, tag or
            commit of it (needs `huggingface_hub`; see `haim_tf.presets.hub`).
        weights: `"auto"`: load the weights, or warn that they are random if there are none; `True`: an error
            if there are none; `False`: random weights. Weights that the preset names by URL are downloaded
            once (see `haim_tf.presets.downloads`).
        num_classes: make the model class-conditional on this many labels. Where that is not the preset's
            own number, it gets a new class embedding, whose rows all begin at that of "no label", or at the
            mean where there is none, and everything else is kept; where the preset is unconditional,
            labels change nothing before they are trained.
        class_names: make it class-conditional on classes of these names, in the order of their labels; as
            with `num_classes`, the class embedding is a new one where they are not the preset's own, but
            classes that the preset knows by name keep their rows.

    Returns:
        A `HierarchicalModel`; its `class_names` are the labels' names, a list, or `None` where unknown, and
        its `sampling_defaults` how it samples when nothing else is asked.

    Raises:
        ValueError: an unknown name, weights that are damaged, foreign or do not fit, files of another format.
        FileNotFoundError: no such folder, a file of the preset missing, or weights that cannot be downloaded.

    Example:
        >>> model = load("debug")
        >>> model.image_shape
        (16, 16, 3)
    """
    if weights not in ("auto", True, False):
        raise ValueError(f'weights must be "auto", True or False, got {weights!r}')
    if num_classes is not None:
        num_classes = require_int("num_classes", num_classes, low=1)
    if class_names is not None:
        from haim_tf.class_names import names_of

        class_names = names_of(class_names)
        if num_classes not in (None, len(class_names)):
            raise ValueError(f"class_names must be {num_classes} names, got {len(class_names)}")
        num_classes = require_int("the number of class_names", len(class_names), low=1)
    folder = find(name_or_folder, weights=bool(weights))
    arguments, metadata = read(folder)
    path = weights_path(folder, metadata, download=bool(weights))
    if weights is True and not path.exists():
        raise FileNotFoundError(
            f"there are no weights {path}: this model is a configuration, to be trained (haim_tf list tells "
            "which are pretrained)"
        )
    own = metadata.get("class_names")
    changed = num_classes is not None and num_classes != arguments.get("num_classes")
    changed |= class_names is not None and own is not None and class_names != own
    model = _build(folder, {**arguments, "num_classes": num_classes} if changed else arguments)
    model.class_names = class_names or (None if changed else own)
    model.sampling_defaults = sampling_of(folder, model, metadata)

    if weights and path.exists():
        model.origin = {"name": metadata.get("name", folder.name), "sha256": metadata.get("sha256")}
        model.origin |= {"pretrained": bool(metadata.get("pretrained")), "dataset": metadata.get("dataset")}
        weights_file.check(path, metadata.get("sha256"))
        unconditional = arguments.get("num_classes") is None
        told = [network for network in model.networks if changed and network.label_layers()]
        # Where the preset takes labels, what reads them is known; only their rows are others.
        fresh = [n.label_layers() if unconditional else n.label_layers()[:1] for n in told]
        weights_file.restore(model, path, sum(fresh, []), fresh_absent=unconditional)
        for network, (table, *_) in zip(told, fresh, strict=True):
            variable = table.weights[0]
            if unconditional:
                variable.assign(variable * 0)  # What is added to a working network is 0 at first.
            else:
                old = weights_file.stored(model, path, variable)
                variable.assign(_class_rows(model, network, old, own))
    elif weights:
        warnings.warn(
            f"{folder} holds no {WEIGHTS}: the weights of this model are RANDOM. "
            "Say weights=False if that is what you want.",
            stacklevel=2,
        )
    return model


def _class_rows(model, network, old, names):
    """A network's new class embedding from the rows of its old one, `(rows, width)`, of classes of these
    names."""
    import numpy as np

    from haim_tf.class_names import find_class

    count = network.num_classes + (network.no_label is not None)
    rows = np.repeat(old.mean(0, keepdims=True) if network.no_label is None else old[-1:], count, axis=0)
    for label, name in enumerate(model.class_names or ()):
        with contextlib.suppress(ValueError):  # A class that the preset does not have.
            rows[label] = old[find_class(name, names)]
    return rows


def _build(folder, arguments):
    try:
        return registered_class(MODEL)(**arguments)
    except Exception as error:
        if not is_about_arguments(error):
            raise
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error}") from error
