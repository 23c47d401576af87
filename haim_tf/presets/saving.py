"""A preset folder from a model: all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haim_tf import files
from haim_tf.presets import weights_file
from haim_tf.presets.folder import (
    CARD,
    CONFIG,
    FORMAT_VERSION,
    METADATA,
    MODEL,
    WEIGHTS,
    check_metadata,
    read,
    sampling_of,
)
from haim_tf.presets.model_card import model_card
from haim_tf.version import __version__

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel


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
        model: a `HierarchicalModel`; of a subclass it is what `load` makes again, a `HierarchicalModel`.
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
            - `license`: of the weights, as the hub calls it, e.g. `"apache-2.0"` (see `presets.hub.upload`);
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
        ValueError: an existing folder, one that cannot be written, metadata that JSON cannot hold, weights
            that are not finite.
        FileNotFoundError: the folder above does not exist.

    Example:
        >>> save_to_preset(haim_tf.load("debug"), "my_model", metadata={"description": "Of noise."})
        >>> model = haim_tf.load("my_model")
    """
    folder, metadata = _prepared(model, folder, metadata, precision, overwrite)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name[:60]}.", dir=folder.parent))
        try:
            unfinished = scratch / folder.name
            unfinished.mkdir()  # As new folders are here: temporary ones are private.
            metadata["sha256"] = None
            if weights:
                weights_file.write(model, unfinished / WEIGHTS, precision)
                metadata["sha256"] = weights_file.sha256(unfinished / WEIGHTS)
            for name, text in _texts(model.arguments, metadata).items():
                (unfinished / name).write_bytes(text)
            _move(unfinished, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
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
    nothing: before long work whose result is to be saved.

    Example:
        >>> check_savable(haim_tf.load("debug"), "my_model")
    """
    _prepared(model, folder, metadata, precision, overwrite)


def _prepared(model, folder, metadata, precision, overwrite):
    """The folder to write, what a link points to, and the whole metadata, after every check."""
    import keras

    if precision not in ("float32", "float16"):
        raise ValueError(f'precision must be "float32" or "float16", got {precision!r}')
    if not isinstance(metadata, (dict, type(None))):
        raise ValueError(f"metadata must be a dict, got {metadata!r:.60}")
    named = files.absolute(folder)
    folder = files.linked(named)
    if folder.exists() and not (overwrite and folder.is_dir()):
        raise ValueError(f"{folder} exists: name another folder, or say overwrite=True to replace a preset")
    files.check_folder_above(folder)
    by_part = {name: part.count_params() for name, part in model.parts.items()}
    if model.count_params() != sum(x.count_params() for x in (*model.autoencoders, *model.networks)):
        raise ValueError(
            f"a preset holds the parts of a {MODEL} alone: this {type(model).__name__} has further weights"
        )
    metadata = {
        "name": named.name,
        **provenance(model),
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
    if metadata["class_names"] is not None:
        metadata["class_names"] = _class_names(metadata["class_names"], model.num_classes)
    check_metadata(folder, model.arguments, metadata)
    sampling_of(folder, model, metadata)
    _texts(model.arguments, {**metadata, "sha256": None})
    return folder, metadata


def _texts(arguments, metadata):
    """The content of a preset's JSON files and card, bytes by file name."""
    texts = {
        CONFIG: _as_json(CONFIG, {"class_name": MODEL, "config": arguments}),
        METADATA: _as_json(METADATA, metadata),
    }
    try:
        card = model_card(arguments, metadata)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"metadata must be as save_to_preset takes it, got {error!r} at the card") from error
    return {**texts, CARD: _as_utf_8(CARD, card)}


def rewrite_metadata(folder: str | os.PathLike, changes: dict[str, Any]) -> None:
    """Changes entries of a preset's `metadata.json`, and the model card with them.

    Args:
        folder: of a preset.
        changes: a dict, as `metadata` of `save_to_preset`.

    Raises:
        ValueError, FileNotFoundError: no preset, or what JSON cannot hold.

    Example:
        >>> save_to_preset(haim_tf.load("debug"), "my_model")
        >>> rewrite_metadata("my_model", {"description": "Leaves at 16x16."})
    """
    folder = files.absolute(folder)
    arguments, metadata = read(folder)
    check_metadata(folder, arguments, {**metadata, **changes})
    texts = _texts(arguments, {**metadata, **changes})
    for name in (METADATA, CARD):
        files.write_file(folder / name, lambda file, text=texts[name]: file.write(text))


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


def _class_names(names, num_classes):
    from haim_tf.class_names import names_of

    names = names_of(names)
    if len(names) != num_classes:
        raise ValueError(f"class_names must be {num_classes} names, one per class, got {names}")
    return names


def provenance(model: HierarchicalModel) -> dict[str, Any]:
    """What a model's own history says of its weights: the metadata where nothing else is told.

    Example:
        >>> provenance(haim_tf.load("debug"))["pretrained"]
        False
    """
    origin = model.origin or {}
    known = {"pretrained": bool(model.fitted or origin.get("pretrained"))}
    if model.fitted and model.fitted_on:
        known["dataset"] = {"name": model.fitted_on}
    if not origin:
        return known
    dataset = origin.get("dataset") or {}
    told = f"{origin['name']} (sha256 {str(origin['sha256'])[:12]})"
    if dataset.get("name"):
        told += f", trained on {dataset['name']}; terms: {dataset.get('terms', 'unknown')}"
    if model.fitted:
        return {**known, "training": {"fine-tuned from": told}}
    return {**known, "dataset": origin.get("dataset"), "training": {"copied from": told}}


def _move(unfinished, folder):
    """Puts a finished folder in its place; an existing one is replaced, but for files of other names."""
    if not folder.exists():
        return unfinished.rename(folder)
    for path in folder.iterdir():
        # Weights of the preset that was there do not belong to this one.
        if path.name != WEIGHTS and not (unfinished / path.name).exists():
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, unfinished / path.name, symlinks=True)
            else:
                shutil.copy2(path, unfinished / path.name, follow_symlinks=False)
    shutil.copymode(folder, unfinished)
    replaced = unfinished.parent.with_name(f"{unfinished.parent.name}.replaced")
    folder.rename(replaced)
    try:
        unfinished.rename(folder)
    except OSError:
        replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
