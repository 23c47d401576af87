"""`load`: one call that reads images from TFDS, from a folder, or from `.npz` and `.npy` files."""

import os

from haim_tf import files
from haim_tf.checks import require_int
from haim_tf.data import arrays, folders, tfds_sets
from haim_tf.data.image_data import ImageData, ImageShape

# Pixels; Pillow's and JPEG's.
MAX_SIDE = 65535
_ACCEPTED = (
    "source must be a folder of images, an .npz or .npy file, or the name of a TFDS data set, for example "
    "'fashion_mnist', 'cifar10' or 'imagenet_resized/64x64'"
)


def load(source: str | os.PathLike, split: str = "train", image_shape: ImageShape | None = None) -> ImageData:
    """Reads images, and their labels where there are any.

    Args:
        source: one of
            - a folder: `root/<class>/*.png`, or `root/*.png` without labels (also jpg, jpeg, webp, bmp; other
              files are left out, and counted in a line on stderr), or either of them below `root/<split>/`.
              Its folders are splits where all are named like splits ("train", "validation", "val", "valid",
              "test", or `split`), or where those that are hold classes. A folder without images is no class;
              images in folders within a class's are an error. Files are decoded on access, their EXIF
              rotation ignored. With classes, the images come in a fixed shuffled order, so that every
              slice mixes the classes; a file that is cut off is an error at once;
            - a folder with `<split>_images.npy`, and optionally `<split>_labels.npy` and `classes.json` (a
              list of names);
            - an `.npy` file of images, mapped into memory; `X_images.npy` takes its labels from
              `X_labels.npy` and `classes.json` beside it if they are there;
            - an `.npz` file with `images` and optionally `labels` and `class_names`, or with Keras' names
              `x_train`, `y_train`, `x_test`, `y_test`;
            - if no such file or folder exists, the name of a TFDS data set with a feature `image` and, for
              labels, `label`. Kept where TFDS keeps its data (`TFDS_DATA_DIR`), and read into memory.
        split: "train", or one of "validation", "val", "valid", "test", which stand in for each other where
            the one asked for is not there. A source without splits is taken whole for any name, which "all"
            says best (of held-out images a line on stderr says so). A slice may follow, in images or percent:
            "train[:90%]", "train[-1000:]"; without splits "all[:90%]" to train on and "all[90%:]" to measure
            on. Slices of a source without splits are of a fixed shuffled order, so that they mix the classes
            even of one that is sorted by them. TFDS takes all that it understands itself.
        image_shape: `(H, W, C)` that every image is brought to: converted to grey or RGB as Pillow does
            (alpha is dropped), cropped around its centre to the aspect ratio, resized with the antialiasing
            Lanczos filter. None: as they are.

    Returns:
        An `ImageData`, its images uint8 (N, H, W, C); its `split` says which part was really read, its
        `paths` which files it is from.

    Raises:
        FileNotFoundError: no such file or folder, where `source` cannot be the name of a TFDS data set (a
            `Path`; "./photos", "photos.npz"), or a TFDS data set that cannot be downloaded.
        ValueError: everything else that is wrong with the source, the split or the images.

    Example:
        >>> data = load("fashion_mnist", "train[:90%]", image_shape=(32, 32, 1))
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"{_ACCEPTED}, got {type(source).__name__}")
    image_shape = _check_image_shape(image_shape)
    path = files.expanded(source)
    try:
        if path.is_dir():
            return folders.load_folder(path, split, image_shape)
        if path.suffix == ".npy" and path.exists():
            return arrays.load_npy(path, split, image_shape)
        if path.suffix == ".npz" and path.exists():
            return arrays.load_npz(path, split, image_shape)
        if path.exists():
            raise ValueError(f"{_ACCEPTED}, got the file {path}")
    except PermissionError as error:
        raise ValueError(f"cannot read {error.filename or path}: permission denied") from error
    # A TFDS name may hold a slash, but does not start like a path or end like a file.
    if not isinstance(source, str) or source[:1] in ("/", ".", "~") or path.suffix in (".npz", ".npy"):
        raise FileNotFoundError(f"there is no file or folder {str(source)!r}: {_ACCEPTED}")
    return tfds_sets.load_tfds(source, split, image_shape, _ACCEPTED)


def _check_image_shape(shape):
    if shape is None:
        return None
    try:
        height, width, channels = (require_int("image_shape", side, 1, MAX_SIDE) for side in shape)
    except (TypeError, ValueError):
        channels = None
    if channels not in (1, 3):
        raise ValueError(
            f"image_shape must be (height, width, channels), sides of at most {MAX_SIDE}, channels 1 or 3, "
            f"got {shape!r}"
        )
    return height, width, channels
