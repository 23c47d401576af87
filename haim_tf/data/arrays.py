"""Images from `.npy` and `.npz` files."""

import json
from pathlib import Path

import numpy as np

from haim_tf.data.image_data import ImageData, ImageShape
from haim_tf.data.image_files import fit_array
from haim_tf.data.reading import progress, reading
from haim_tf.data.rows import Rows
from haim_tf.data.splits import (
    ALL,
    choose_split,
    describe,
    mixed_rows,
    parse_split,
    to_slice,
    warn_without_splits,
)


def load_npy(path: Path, split: str, image_shape: ImageShape | None, found: str | None = None) -> ImageData:
    """An `.npy` file; `X_images.npy` with the labels in `X_labels.npy` and the names in `classes.json`.
    `found` is the split that it is, where its folder has splits."""
    asked, bounds = parse_split(split)
    labels = class_names = None
    with reading(path, "an .npy file"):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    labels_path = path.with_name(path.name.replace("_images.npy", "_labels.npy"))
    if labels_path != path and labels_path.exists():
        with reading(labels_path, "an .npy file"):
            labels = np.load(labels_path, allow_pickle=False)
        class_names = _read_names(path.with_name("classes.json"))
    return _build(images, labels, class_names, (asked, found, bounds), image_shape, path)


def load_npz(path: Path, split: str, image_shape: ImageShape | None) -> ImageData:
    """An `.npz` file with `images` and perhaps `labels` and `class_names`, or `x_<split>` and `y_<split>`."""
    asked, bounds = parse_split(split)
    with reading(path, "an .npz file"), np.load(path, allow_pickle=False) as archive:
        split, keys = _npz_keys(archive.files, asked, path)
        images, labels, class_names = (archive[key] if key in archive.files else None for key in keys)
    return _build(images, labels, class_names, (asked, split, bounds), image_shape, path)


def _npz_keys(found, split, path):
    """The split, or None where there are none, and where images, labels and class names are."""
    if "images" in found:
        return None, ("images", "labels", "class_names")
    splits = {key[2:] for key in found if key.startswith("x_")}
    if not splits:
        raise ValueError(f"its arrays must be images, or x_train and x_test, got {found}")
    split = choose_split(split, splits, path)
    return split, (f"x_{split}", f"y_{split}", "class_names")


def _build(images, labels, class_names, split, image_shape, name):
    """`split`: what was asked for, what of it was found (None: a source without splits), and bounds."""
    data = ImageData(images, labels, class_names, name)
    asked, found, bounds = split
    part = to_slice(bounds, len(data), name)
    if found is None:
        warn_without_splits(asked, bounds, data.name, len(data))
        part = mixed_rows(part, len(data))
    split = describe(found or ALL, bounds)
    mapped = isinstance(data.images, np.memmap) and not isinstance(part, slice)
    images = Rows(data.images, part) if mapped else data.images[part]
    if image_shape not in (None, data.image_shape):
        images = _fitted(images, image_shape, name)
    return ImageData(images, None if labels is None else data.labels[part], class_names, name, split)


def _fitted(images, image_shape, name):
    """Images brought to a shape, in memory."""
    try:
        fitted = np.empty((len(images), *image_shape), "uint8")
    except (MemoryError, ValueError):  # More than memory has; more than an array can have.
        raise ValueError(
            f"{name}: image_shape must be one of which memory holds {len(images)} images, got {image_shape}"
        ) from None
    for i, image in enumerate(progress(images, name)):
        fitted[i] = fit_array(image, image_shape)
    return fitted


def _read_names(path):
    if not path.exists():
        return None
    with reading(path, "a JSON list of names"):
        names = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"it must be a list of names, got {str(names)[:60]}")
    return names
