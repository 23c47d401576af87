"""Images from folders, with and without classes and splits."""

from pathlib import Path

import numpy as np

from haim_tf.data.arrays import load_npy
from haim_tf.data.image_data import ImageData
from haim_tf.data.image_files import ImageFiles
from haim_tf.data.splits import HELD_OUT, choose_split, parse_split, to_slice

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load_folder(root: Path, split: str, image_shape: tuple[int, int, int] | None) -> ImageData:
    """A folder of images, of classes or of `<split>_images.npy` files, see `haim_tf.data.load`."""
    name, bounds = parse_split(split)
    arrays = {file.name.removesuffix("_images.npy") for file in root.glob("*_images.npy")}
    if arrays:
        return load_npy(root / f"{choose_split(name, arrays, root)}_images.npy", split, image_shape)
    folder, class_names = _find_classes(root, name)
    files = [(file, None) for file in _image_files(folder)]
    if files and class_names:
        raise ValueError(f"{folder} holds both images and folders. Accepted: one or the other.")
    for label, class_name in enumerate(class_names):
        if (folder / class_name).is_dir():
            files += [(file, label) for file in _image_files(folder / class_name)]
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(_SUFFIXES)}), nor do the folders in it.")
    if class_names:
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    paths, labels = zip(*files[to_slice(bounds, len(files), folder)], strict=True)
    images = ImageFiles(paths, image_shape)
    return ImageData(images, labels if class_names else None, class_names or None, folder)


def _find_classes(root, split):
    """The folder that holds the split, and the names of the classes."""
    folders = _subfolders(root)
    splits = {split, "train", *HELD_OUT}.intersection(folders)
    if not splits:
        return root, folders
    folder = root / choose_split(split, splits, root)
    if not _subfolders(folder):
        return folder, []
    # The classes of all splits, so that one that this split lacks does not shift its labels.
    return folder, sorted({name for other in splits for name in _subfolders(root / other)})


def _subfolders(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(folder):
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and p.name[0] != ".")
