"""Images from TensorFlow Datasets, read into memory."""

import difflib

import numpy as np

from haim_tf.data.image_data import ImageData, ImageShape, check_images
from haim_tf.data.image_files import fit_array
from haim_tf.data.reading import progress
from haim_tf.data.splits import find_split


def load_tfds(name: str, split: str, image_shape: ImageShape | None, accepted: str) -> ImageData:
    """A TFDS data set by name, see `haim_tf.data.load`; `accepted` begins the error for an unknown name."""
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"there is no file or folder {name!r}, and TFDS needs tensorflow and tensorflow-datasets: {error}"
        ) from error
    builder = _find(tfds, name, accepted)
    image, label = (dict(builder.info.features).get(key) for key in ("image", "label"))
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(
            f"source must have a feature 'image' of 8-bit images, got the TFDS data set {name!r}"
        )
    class_names = label.names if isinstance(label, tfds.features.ClassLabel) else None
    try:
        builder.download_and_prepare()
    except Exception as error:  # The network, the disk, a manual download that is not there.
        raise FileNotFoundError(
            f"the TFDS data set {name!r} is not in {builder.data_dir} and cannot be made: {_line(error)}"
        ) from error
    splits = builder.info.splits
    split = _rename(split, splits)
    try:
        examples = tfds.as_numpy(builder.as_dataset(split=split))
        total = splits[split].num_examples if splits else None
    except (ValueError, KeyError) as error:
        known = f"one of {', '.join(sorted(splits))}, or a slice of one"
        raise ValueError(
            f"{name}: split must be {known}, got {split!r}; TFDS says: {_line(error)}"
        ) from error
    try:
        images, labels = _gather(progress(examples, name, total), image_shape, name)
    except tf.errors.OpError as error:
        raise ValueError(f"the TFDS data set in {builder.data_dir} is damaged: {_line(error)}") from error
    return ImageData(images, None if class_names is None else labels, class_names, name, split)


def _gather(examples, image_shape, name):
    """Images (N, H, W, C) and labels (N,) of all examples."""
    pixels, labels, shape = bytearray(), [], image_shape
    for example in examples:
        image = check_images(example["image"][None], name)[0]
        if image_shape is not None:
            image = fit_array(image, image_shape)
        shape = shape or image.shape
        if image.shape != shape:
            raise ValueError(
                f"{name}: images must be of one size, unless image_shape=(H, W, C) is given, got {shape} "
                f"and {image.shape}"
            )
        pixels += image.tobytes()  # Grows in place; a list of arrays would take twice the memory at the end.
        labels.append(example.get("label"))
    if not labels:
        raise ValueError(f"{name}: split must hold at least one image, got none")
    return np.frombuffer(pixels, "uint8").reshape(-1, *shape), np.array(labels)


def _find(tfds, name, accepted):
    try:
        return tfds.builder(name)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0], known)
        hint = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"{accepted}, got {name!r}{hint}") from error
    except Exception as error:  # A malformed name, an unknown configuration or version, a missing package.
        raise ValueError(f"{accepted}, got {name!r}; TFDS says: {_line(error)}") from error


def _rename(split, splits):
    """The split under the name that this data set has for it; TFDS checks the rest."""
    if not isinstance(split, str):
        raise ValueError(f"split must be a name, perhaps with a slice, such as 'train[:90%]', got {split!r}")
    name, bracket, bounds = split.partition("[")
    return (find_split(name, splits) or name) + bracket + bounds


def _line(error):
    return " ".join(str(error).split())[:300]
