"""Images from folders, with and without classes and splits."""

import os
import unicodedata
from pathlib import Path

import numpy as np

from haim_tf.data.arrays import load_npy
from haim_tf.data.image_data import ImageData, ImageShape, printable
from haim_tf.data.image_files import ImageFiles
from haim_tf.data.reading import say
from haim_tf.data.splits import (
    ALL,
    HELD_OUT,
    choose_split,
    describe,
    mixed_rows,
    parse_split,
    to_slice,
    warn_without_splits,
)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load_folder(root: Path, split: str, image_shape: ImageShape | None) -> ImageData:
    """A folder of images, of classes or of `<split>_images.npy` files, see `haim_tf.data.load`."""
    asked, bounds = parse_split(split)
    arrays = {file.name.removesuffix("_images.npy") for file in root.glob("*_images.npy")}
    if arrays:
        found = choose_split(asked, arrays, root)
        return load_npy(root / f"{found}_images.npy", split, image_shape, found)
    found, class_names = _find_classes(root, asked)
    folder = root / found if found else root
    files, left_out = _files(folder)
    files = [(file, None) for file in files]
    if files and class_names:
        raise ValueError(f"{printable(str(folder))} must hold images or folders of them, got both")
    for name in _subfolders(folder):
        _check_flat(folder / name)
        images, others = _files(folder / name)
        left_out += others
        files += [(file, class_names.index(_composed(name))) for file in images]
    empty = [name for name in _subfolders(folder) if _composed(name) not in class_names]
    accepted = ", ".join(_SUFFIXES)
    if not files:
        shown = printable(str(folder))
        raise ValueError(
            f"{shown} must hold images ({accepted}) or folders of them, got none{_kinds(left_out)}"
        )
    if left_out:
        say(f"{folder}: {len(files)} images ({accepted}){_kinds(left_out)}")
    if empty:
        say(f"{folder}: folders without images are no classes: {_some(empty)}")
    if class_names:
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    part = to_slice(bounds, len(files), folder)
    if not found:
        warn_without_splits(asked, bounds, folder, len(files))
    if found or class_names:
        files = files[part]
    else:
        files = [files[i] for i in np.arange(len(files))[mixed_rows(part, len(files))]]
    paths, labels = zip(*files, strict=True)
    labels, class_names = (labels, class_names) if class_names else (None, None)
    split = describe(found or ALL, bounds)
    checked = ImageData(np.zeros((1, 1, 1, 1), "uint8"), None, class_names, folder)  # Before all the headers.
    return ImageData(ImageFiles(paths, image_shape), labels, checked.class_names, folder, split)


def _find_classes(root, split):
    """The split's folder in `root`, None where that has no splits, and the names of the classes."""
    folders = _subfolders(root)
    _check_case(root, {split, "train", *HELD_OUT}, folders)
    named = {split, "train", *HELD_OUT}.intersection(folders)
    if not named or (named != set(folders) and not _are_splits(root, named, folders)):
        return None, _classes([root])
    found = choose_split(split, named, root)
    if not _subfolders(root / found):
        return found, []
    # The classes of all splits, so that one that this split lacks does not shift its labels.
    return found, _classes([root / other for other in named])


def _classes(splits):
    """The names of the classes, folders with images, of some splits' folders."""
    names = {_composed(name) for split in splits for name in _subfolders(split) if _has_images(split / name)}
    return sorted(names)


def _composed(name):
    """A folder's name as Unicode composes it: systems write the same accents in two ways."""
    return unicodedata.normalize("NFC", name)


def _check_flat(folder):
    """A ValueError where the folder of a class has images in folders of its own, which nothing would read."""
    nested = [name for name in _subfolders(folder) if _has_images(folder / name)]
    if nested:
        raise ValueError(
            f"{printable(str(folder))}: the images of a class must lie in its folder itself, got images in "
            f"{_some(nested)}"
        )


def _has_images(folder):
    with os.scandir(folder) as entries:
        return any(_is_image(Path(x)) for x in entries if not x.name.startswith(".") and not x.is_dir())


def _is_image(path):
    return path.suffix.lower() in _SUFFIXES


def _check_case(root, splits, folders):
    """A ValueError where folders are named like splits, all of them, but for capitals."""
    if folders and set(folders) - splits and {name.lower() for name in folders} <= splits:
        raise ValueError(
            f"{printable(str(root))}: folders of splits must be in lower case, got {', '.join(folders)}"
        )


def _are_splits(root, named, folders):
    """Whether folders that are named like splits, beside others, are splits: they hold classes, the others no
    images. Where all hold images, all are classes; anything between is an error."""
    holds = {name: bool(_files(root / name)[0]) for name in folders}
    if not any(holds.values()) and all(_subfolders(root / name) for name in named):
        return True
    if all(holds.values()) and not any(_subfolders(root / name) for name in named):
        return False
    others = sorted(set(folders) - named)
    raise ValueError(
        f"{printable(str(root))}: its folders must all be splits or all be classes, got {sorted(named)}, "
        f"named like splits, beside {_some(others)}"
    )


def _some(names):
    return ", ".join(map(ascii, names[:8])) + (", ..." if len(names) > 8 else "")


def _subfolders(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _kinds(left_out):
    """What is said of files left out."""
    if not left_out:
        return ""
    kinds = sorted({printable(path.suffix or path.name) for path in left_out})
    shown = ", ".join(kinds[:8]) + (", ..." if len(kinds) > 8 else "")
    return f", and {len(left_out)} other file{'s' if len(left_out) > 1 else ''} that are left out: {shown}"


def _files(folder):
    """The images of a folder, in the order of their names, and the other files; hidden ones aside."""
    with os.scandir(folder) as entries:
        paths = sorted(Path(x) for x in entries if not x.name.startswith(".") and not x.is_dir())
    images = [path for path in paths if _is_image(path)]
    return images, [path for path in paths if not _is_image(path)]
