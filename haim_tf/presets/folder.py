"""A preset folder: written, found and loaded; and the folders of the zoo."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.resources
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haim_tf import files
from haim_tf.checks import check_sampling, require_int
from haim_tf.presets import downloads, weights_file
from haim_tf.presets.model_card import model_card
from haim_tf.registered import registered_class
from haim_tf.version import __version__

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel

FORMAT_VERSION = 1
MODEL = "HierarchicalModel"
CONFIG, WEIGHTS, METADATA, CARD = "config.json", "model.weights.h5", "metadata.json", "README.md"


def list_models(pattern: str = "*", pretrained: bool | None = None) -> list[str]:
    """Names of the models in the zoo, sorted.

    Args:
        pattern: which names, in the notation of `fnmatch`.
        pretrained: `True`: only those whose trained weights are here; `False`: only the others; `None`: all.

    Example:
        >>> list_models("deb*")
        ['debug']
    """
    names = sorted(path.parent.name for path in _zoo().glob(f"[!.]*/{CONFIG}"))
    names = fnmatch.filter(names, pattern)
    return names if pretrained is None else [n for n in names if is_pretrained(_zoo() / n) == pretrained]


def load(
    name_or_folder: str | os.PathLike,
    weights: bool | Literal["auto"] = "auto",
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> HierarchicalModel:
    """Loads a model of the zoo, or from a preset folder.

    Args:
        name_or_folder: a name that `list_models()` gives, or a folder that `save_to_preset` wrote.
        weights: `"auto"`: load the weights, or warn that they are random if there are none; `True`: an error
            if there are none; `False`: random weights. Weights that the preset names by URL are downloaded
            once (see `haim_tf.presets.downloads`).
        num_classes: make the model class-conditional on this many labels. Where that is not the preset's
            own number, the class embedding starts afresh and everything else is kept; where the preset is
            unconditional, the layers that read the embedding start afresh as well.
        class_names: make it class-conditional on classes of these names, in the order of their labels; as
            with `num_classes`, the class embedding starts afresh where they are not the preset's own.

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
        class_names = [str(name) for name in class_names]
        if num_classes not in (None, len(class_names)):
            raise ValueError(f"class_names must be {num_classes} names, got {len(class_names)}")
        num_classes = require_int("the number of class_names", len(class_names), low=1)
    folder = find(name_or_folder)
    arguments, metadata = read(folder)
    path = _weights_path(folder, metadata, download=bool(weights))
    if weights is True and not path.exists():
        raise FileNotFoundError(f"there are no weights {path}")
    own = metadata.get("class_names")
    changed = num_classes is not None and num_classes != arguments.get("num_classes")
    changed |= class_names is not None and own is not None and class_names != own
    model = _build(folder, {**arguments, "num_classes": num_classes} if changed else arguments)
    model.class_names = class_names or (None if changed else own)
    model.sampling_defaults = _sampling(folder, model, metadata)

    if weights and path.exists():
        model.origin = {"name": metadata.get("name", folder.name), "sha256": metadata.get("sha256")}
        model.origin |= {"pretrained": bool(metadata.get("pretrained")), "dataset": metadata.get("dataset")}
        weights_file.check(path, metadata.get("sha256"))
        fresh, unconditional = [], arguments.get("num_classes") is None
        if changed:
            fresh = model.prior.label_layers()
            if not unconditional:
                fresh = fresh[:1]  # What reads the labels is known; only their rows are others.
        weights_file.restore(model, path, fresh, fresh_absent=unconditional)
    elif weights:
        warnings.warn(
            f"{folder} holds no {WEIGHTS}: the weights of this model are RANDOM. "
            "Say weights=False if that is what you want.",
            stacklevel=2,
        )
    return model


def find(name_or_folder: str | os.PathLike) -> Path:
    """The preset folder of a name in the zoo, or the folder itself, as a `Path`; errors as `load`."""
    if not isinstance(name_or_folder, (str, os.PathLike)):
        raise ValueError(f"a model is a name or a preset folder, got {name_or_folder!r}")
    names = list_models()
    if name_or_folder in names:
        return _zoo() / name_or_folder
    folder = files.expanded(name_or_folder)
    if name_or_folder != "" and folder.is_dir():
        return folder
    if not isinstance(name_or_folder, str) or os.sep in name_or_folder or name_or_folder[:1] in (".", "~"):
        raise FileNotFoundError(f"there is no preset folder {str(name_or_folder)!r}")
    near = difflib.get_close_matches(name_or_folder, names)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"there is no model {name_or_folder!r}: {hint}the models are {', '.join(names)}; "
        "a preset folder is accepted as well"
    )


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A preset's constructor arguments and metadata, two dicts from its JSON files; errors as `load`."""
    config, metadata = (_read_json(folder / name) for name in (CONFIG, METADATA))
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has the preset format {version!r}; this is haim_tf {__version__}, which reads format "
            f"{FORMAT_VERSION}"
        )
    arguments = config.get("config")
    if config.get("class_name") != MODEL or not isinstance(arguments, dict):
        raise ValueError(
            f"{folder / CONFIG} must hold the class_name {MODEL!r} and its arguments as config, "
            f"got the class_name {config.get('class_name')!r} and the keys {sorted(config)}"
        )
    return arguments, metadata


def is_pretrained(folder: Path) -> bool:
    """Whether a preset's weights are here (in its folder, or downloaded), and trained ones."""
    metadata = read(folder)[1]
    return bool(_weights_path(folder, metadata).is_file() and metadata.get("pretrained"))


def _weights_path(folder, metadata, download=False):
    """Where a preset's weights are, or should be: in its folder, or where its `weights_url` is downloaded."""
    path, url = folder / WEIGHTS, metadata.get("weights_url")
    if path.exists() or not url:
        return path
    if not metadata.get("sha256"):
        raise ValueError(f"{folder / METADATA} names a weights_url but no sha256 to check it by")
    name, sha256 = metadata.get("name", folder.name), metadata["sha256"]
    return downloads.fetch(name, url, sha256) if download else downloads.kept_path(name, sha256)


def save_to_preset(
    model: HierarchicalModel,
    folder: str | os.PathLike,
    metadata: dict[str, Any] | None = None,
    precision: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
    weights: bool = True,
) -> None:
    """Writes a model as a preset folder: configuration, weights, metadata and a model card; all or nothing.

    Args:
        model: a `HierarchicalModel`.
        folder: a new folder; the one above it must exist.
        metadata: a dict of what is to be known about the model, written to `metadata.json` and told in the
            model card. All keys are optional, other keys are kept:

            - `name`: the folder's name by default; `description`: a sentence or more, Markdown;
            - `pretrained`: whether the weights are trained ones; by default, whether the model comes from a
              preset whose weights are, or was trained by `fit`;
            - `class_names`: the labels' names, the model's own by default;
            - `sampling`: a dict, how the model samples when nothing else is asked (see
              `HierarchicalModel.sampling_defaults`), the model's own by default;
            - `dataset`: a dict, `name`, `terms` (its licence) and whatever else, e.g. `url`;
            - `training`: a dict, e.g. `command`, `cost`, `steps`;
            - `evaluation`: the report that `haim_tf evaluate` writes, with its `split`;
            - `metrics`: a list of dicts, further figures: `name`, `value`, `split`, `count`, `command`;
            - `limits`: a list of sentences;
            - `weights_url`: where `model.weights.h5` can be had, once it was put there and taken out of the
              folder; `load` downloads it and checks its sha256;
            - `pictures`: a dict from file name, e.g. `"samples.png"`, to caption.

            What it says of versions, parameters, precision and checksum is replaced by what is so.
        precision: `"float32"`, or `"float16"` for a file of about half the size: main decoders and prior are
            rounded. Autoencoders stay float32, since rounded ones would give other codes. Loading gives
            float32 variables either way.
        overwrite: replace an existing folder's preset; its files of other names are kept.
        weights: `False` writes none: a preset that only describes a model.

    Raises:
        ValueError: an existing folder, one that cannot be written, metadata that JSON cannot hold.
        FileNotFoundError: the folder above does not exist.

    Example:
        >>> save_to_preset(model, "runs/mine", metadata={"pretrained": True})
        >>> model = load("runs/mine")
    """
    folder, metadata = _prepared(model, folder, metadata, precision, overwrite)
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name[:60]}.", dir=folder.parent))
        try:
            metadata["sha256"] = None
            if weights:
                weights_file.write(model, unfinished / WEIGHTS, precision)
                metadata["sha256"] = weights_file.sha256(unfinished / WEIGHTS)
            for name, text in _texts(model.arguments, type(model).__name__, metadata).items():
                (unfinished / name).write_bytes(text)
            _move(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error


def check_savable(
    model: HierarchicalModel,
    folder: str | os.PathLike,
    metadata: dict[str, Any] | None = None,
    precision: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> None:
    """Raises what `save_to_preset` would with these arguments, but for a full disk, and writes
    nothing: before long work whose result is to be saved."""
    _prepared(model, folder, metadata, precision, overwrite)


def _prepared(model, folder, metadata, precision, overwrite):
    """The folder to write, what a link points to, and the whole metadata, after every check."""
    import keras

    if precision not in ("float32", "float16"):
        raise ValueError(f'precision must be "float32" or "float16", got {precision!r}')
    named = files.absolute(folder)
    folder = files.linked(named)
    if folder.exists() and not (overwrite and folder.is_dir()):
        raise ValueError(f"{folder} exists: name another folder, or say overwrite=True to replace a preset")
    files.check_folder_above(folder)
    by_part = {name: part.count_params() for name, part in model.parts.items()}
    metadata = {
        "name": named.name,
        **_provenance(model),
        "class_names": model.class_names,
        "sampling": model.get_config()["sampling_defaults"],
        **(metadata or {}),
        "format_version": FORMAT_VERSION,
        "keras_version": keras.__version__,
        "haim_tf_version": __version__,
        "parameters": sum(by_part.values()),
        "parameters_by_part": by_part,
        "precision": precision,
    }
    if model.num_classes is None:
        metadata["class_names"] = None
    _check_class_names(metadata["class_names"], model.num_classes)
    _sampling(folder, model, metadata)
    _texts(model.arguments, type(model).__name__, {**metadata, "sha256": None})
    return folder, metadata


def _texts(arguments, class_name, metadata):
    """The content of a preset's JSON files and card, bytes by file name."""
    return {
        CONFIG: _as_json(CONFIG, {"class_name": class_name, "config": arguments}),
        METADATA: _as_json(METADATA, metadata),
        CARD: _as_utf_8(CARD, model_card(arguments, metadata)),
    }


def rewrite_metadata(folder: str | os.PathLike, changes: dict[str, Any]) -> None:
    """Changes entries of a preset's `metadata.json`, and the model card with them.

    Args:
        folder: of a preset.
        changes: a dict, as `metadata` of `save_to_preset`.

    Raises:
        ValueError, FileNotFoundError: no preset, or what JSON cannot hold.
    """
    folder = files.absolute(folder)
    arguments, metadata = read(folder)
    texts = _texts(arguments, MODEL, {**metadata, **changes})
    for name in (METADATA, CARD):
        files.write_file(folder / name, lambda file, text=texts[name]: file.write(text))


def _zoo():
    return Path(str(importlib.resources.files("haim_tf.zoo")))


def _read_json(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is no preset folder: it has no {path.name}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {str(value)[:60]}")
    return value


def _as_json(name, value):
    try:
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from error
    return _as_utf_8(name, text)


def _as_utf_8(name, text):
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        wrong = error.object[max(error.start - 20, 0) : error.end + 20]
        raise ValueError(f"what {name} holds must be UTF-8, got {ascii(wrong)}") from None


def _check_class_names(names, num_classes):
    if names is not None and len(names) != num_classes:
        raise ValueError(f"class_names must be {num_classes} names, one a class, got {list(names)}")


def _provenance(model):
    """What a model's own history says of its weights: the metadata where nothing else is told."""
    origin = model.origin or {}
    known = {"pretrained": bool(model.fitted or origin.get("pretrained"))}
    if not origin:
        return known
    dataset = origin.get("dataset") or {}
    told = f"{origin['name']} (sha256 {str(origin['sha256'])[:12]})"
    if dataset.get("name"):
        told += f", trained on {dataset['name']}; terms: {dataset.get('terms', 'unknown')}"
    if model.fitted:
        return {**known, "training": {"fine-tuned from": told}}
    return {**known, "dataset": origin.get("dataset"), "training": {"copied from": told}}


def _sampling(folder, model, metadata):
    """The sampling defaults that metadata holds for a model; a ValueError where they do not fit it."""
    sampling = metadata.get("sampling")
    try:
        check_sampling(sampling, len(model.networks), model.takes_guidance)
    except ValueError as error:
        raise ValueError(f"{folder / METADATA} does not fit the model: {error}") from None
    return sampling


def _move(unfinished, folder):
    """Puts a finished folder in its place; an existing one is replaced, but for files of other names."""
    unfinished.chmod(0o755)  # Temporary folders are private.
    if not folder.exists():
        return unfinished.rename(folder)
    for path in folder.iterdir():
        if not (unfinished / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, unfinished / path.name)
    replaced = unfinished.with_name(f"{unfinished.name}.replaced")
    folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except OSError:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _build(folder, arguments):
    try:
        return registered_class(MODEL)(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error}") from error
