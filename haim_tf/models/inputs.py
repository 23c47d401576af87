"""Checks of what users hand to a model: each wrong input is one error that names what is accepted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from haim_tf.class_names import Labels, labels_of

if TYPE_CHECKING:
    from haim_tf.data import Batches
    from haim_tf.data.image_files import ImageShape
    from haim_tf.models import HierarchicalModel


# Pixels: beyond, no image of a batch fits in any memory once a network has made features of it.
MAX_SIDE = 8192


def check_settings() -> None:
    """A ValueError where Keras' global settings are not those that the models are made for."""
    wanted = {"image_data_format": "channels_last", "floatx": "float32"}
    for name, value in wanted.items():
        found = getattr(keras.config, name)()
        if found != value:
            raise ValueError(
                f"keras.config.{name}() must be {value!r} for models of haim_tf, got {found!r}: call "
                f"keras.config.set_{name}({value!r}) before they are made or loaded"
            )


def check_policy(policy: keras.DTypePolicy) -> None:
    """A ValueError unless a model of this dtype policy keeps its weights in float32."""
    if policy.variable_dtype != "float32":
        raise ValueError(
            "the dtype policy must be float32, mixed_bfloat16 or mixed_float16 (see "
            f"keras.config.set_dtype_policy), got {policy.name}"
        )


def check_configuration(image_shape: Any, levels: Any, prior: Any) -> None:
    """A ValueError where a model's arguments are of other kinds than it takes apart."""
    if np.ndim(image_shape) != 1:
        raise ValueError(f"image_shape must be (H, W, C) with C 1 or 3, got {image_shape!r:.60}")
    listed = isinstance(levels, Sequence) and not isinstance(levels, str)
    if not listed or not all(isinstance(level, Mapping) for level in levels):
        raise ValueError(f"levels must be a list of dicts, one per level, got {levels!r:.60}")
    if not isinstance(prior, Mapping):
        raise ValueError(f"prior must be a dict, got {prior!r:.60}")


def check_images(images: np.ndarray, image_shape: ImageShape, any_scale: bool = False) -> np.ndarray:
    """Returns `images` as a uint8 array `(B, H, W, C)`.

    Accepts integers, or floats, in 0..255; floats are rounded. Fractions all in 0..1 are refused, for they
    were meant otherwise: but for `any_scale`, where that has been decided by others of their kind.

    Raises:
        ValueError: wrong rank, size or channels, dtype, range, or values that are not finite.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != tuple(image_shape):
        raise ValueError(
            f"images must have shape (B, {', '.join(map(str, image_shape))}), got {images.shape}"
            + (" (a single image needs a batch axis: images[None])" if images.ndim == 3 else "")
        )
    if images.dtype == np.uint8:
        return images
    if not (np.issubdtype(images.dtype, np.integer) or np.issubdtype(images.dtype, np.floating)):
        raise ValueError(f"images must be uint8, or int or float in 0..255, got dtype {images.dtype}")
    if not np.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or infinity")
    if images.size and (images.min() < 0 or images.max() > 255):
        raise ValueError(f"images must lie in 0..255, got values {images.min()} to {images.max()}")
    if not any_scale and looks_scaled(images):
        raise ValueError(
            f"images must lie in 0..255, got fractions of at most {images.max():.3g}: "
            "multiply images in 0..1 by 255"
        )
    return np.round(images).astype("uint8")


def looks_scaled(images: np.ndarray) -> bool:
    """Whether numbers look like images in 0..1: all are, and not all are whole."""
    floats = np.issubdtype(images.dtype, np.floating) and images.size
    return bool(floats and images.max() <= 1 and (images != np.round(images)).any())


def check_labels(
    labels: Labels | None, num_classes: int | None, count: int, class_names: Sequence[str] | None = None
) -> np.ndarray | None:
    """Returns `labels` as int32 `(count,)` (one is repeated), or `None` for an unconditional model; names of
    classes are accepted as well.

    Raises:
        ValueError: labels missing for a class-conditional model, given to another, or out of range.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError("this model is not class-conditional: labels must be None")
        return None
    if labels is None:
        raise ValueError(
            f"this model is class-conditional: labels must be ints in 0..{num_classes - 1}, got None"
        )
    labels = labels_of(labels, class_names)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape not in ((), (count,)):
        raise ValueError(f"labels must be one int or have shape ({count},), got {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}, got values {labels.min()} to {labels.max()}"
        )
    return np.broadcast_to(labels, count).astype("int32")


def check_specification(images: Any, labels: Any, image_shape: ImageShape, num_classes: int | None) -> None:
    """Checks the shapes and dtypes of a data set's batches, from their `tf.TensorSpec`s.

    Raises:
        ValueError: wrong shape or dtype; labels missing, not wanted, or not one integer per image.
    """
    shapes = [getattr(part, "shape", None) for part in (images, labels)]
    ranks = [getattr(shape, "rank", None) for shape in shapes]
    if ranks[0] != 4 or tuple(shapes[0])[1:] != tuple(image_shape):
        raise ValueError(f"images must come in batches (B, {', '.join(map(str, image_shape))}), got {images}")
    if not (images.dtype.is_integer or images.dtype.is_floating):
        raise ValueError(f"images must be uint8, or int or float in 0..255, got {images}")
    if (labels is None) != (num_classes is None):
        wanted = "(images, labels)" if num_classes else "images without labels"
        raise ValueError(f"batches must be {wanted} for a model of {num_classes=}, got {labels=}")
    column = ranks[1] == 2 and tuple(shapes[1])[1:] == (1,)
    if labels is not None and ((ranks[1] != 1 and not column) or not labels.dtype.is_integer):
        raise ValueError(f"labels must be integers of shape (B,) or (B, 1), got {labels}")


class BatchCheck:
    """Checks the batches of one data set as they come, by `check_images` and `check_labels`.

    Whether floats are in 0..1 by mistake is decided once: a batch of floats with larger values clears those
    that follow.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: of the model, or `None`.
        class_names: the labels' names, or `None`.
    """

    def __init__(
        self, image_shape: ImageShape, num_classes: int | None, class_names: Sequence[str] | None = None
    ):
        self.arguments = image_shape, num_classes, class_names
        self.decided = False

    def __call__(
        self, images: np.ndarray, labels: Labels | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 images and int32 labels (or `None`) of a batch; a ValueError where they do not fit."""
        image_shape, num_classes, class_names = self.arguments
        images = np.asarray(images)
        checked = check_images(images, image_shape, any_scale=self.decided)
        floats = np.issubdtype(images.dtype, np.floating) and images.size
        self.decided = self.decided or bool(floats and images.max() > 1)
        return checked, check_labels(labels, num_classes, len(checked), class_names)

    def batch(self, batch: np.ndarray | tuple) -> np.ndarray | tuple:
        """The same for a batch as Keras takes it: images, `(images,)` or `(images, labels)`."""
        images, labels = unpack(batch)
        images, labels = self(images, labels)
        if not len(images):
            raise ValueError("each batch must hold at least one image, got one without")
        return images if labels is None else (images, labels)


def unpack(batch: Any) -> tuple[Any, Any]:
    """A batch as (images, labels), labels `None` where there are none."""
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) > 2 and any(part is not None for part in batch[2:]):
        raise ValueError("sample weights are not supported: give batches of images or (images, labels)")
    return batch[0], batch[1] if len(batch) > 1 else None


def checked_batches(batches: Any, check: BatchCheck) -> Any:
    """A `tf.data.Dataset` whose batches are checked as they come.

    Args:
        batches: a data set of images or (images, labels) that `check_specification` accepts.
        check: a `BatchCheck`.

    Returns:
        A data set of uint8 images, or of those and int32 labels. A batch with values out of range ends its
        iteration in TensorFlow's own error, which `value_errors` turns into a ValueError.
    """
    import tensorflow as tf

    def check_arrays(images, labels=None):
        images, labels = check(images, labels)
        return images if labels is None else (images, labels)

    def check_batch(*batch):
        batch = [part for part in batch if part is not None]
        kinds = (tf.uint8, tf.int32)[: len(batch)]
        checked = tf.numpy_function(check_arrays, batch, kinds if len(batch) > 1 else kinds[0], stateful=True)
        checked = tf.nest.flatten(checked)
        for part, given in zip(checked, batch, strict=True):
            part.set_shape(given.shape if len(given.shape) != 2 else given.shape[:1])
        return tuple(checked) if len(checked) > 1 else checked[0]

    return batches.map(check_batch)


def check_batches(batches: Batches, model: HierarchicalModel) -> None:
    """Checks the data of a `Batches` that gives crops or codes, whose batches no `BatchCheck` takes.

    Raises:
        ValueError: images or labels that do not fit; crops that the parts in training cannot learn on.
    """
    if batches.crop is None and batches.codes is None:
        return
    data = batches.data
    if tuple(data.image_shape) != tuple(model.image_shape):
        raise ValueError(f"images must have the shape {tuple(model.image_shape)}, got {data.image_shape}")
    check_labels(data.labels if batches.labels else None, model.num_classes, len(data))
    if batches.crop is not None:
        trained = {name for name, part in model.parts.items() if part.trainable_variables}
        check_crop(model, trained, batches.crop, batches.crop)


def check_crop(model: HierarchicalModel, trained: set[str], crop: int, given: Any) -> None:
    """A ValueError, which shows what was `given`, where parts of these names cannot learn on crops."""
    networks = [part for name, part in model.parts.items() if name in trained]
    codes = trained & model.parts_named(["codes"])
    if codes or ("prior" in trained and model.num_levels):
        raise ValueError(f"crop is for training main decoders (or a flat model) only, got {given}")
    if not all(network.learns_on_crops for network in networks):
        raise ValueError(
            f"crop is for networks without attention, which would learn at wrong positions, got {given}"
        )
    # Crops lie on the lines of the coarsest codes that these parts read.
    level = max((int(name.rpartition("_")[2]) for name in trained if model.num_levels), default=0)
    side, cell = min(model.image_shape[:2]), model.image_shape[0] // model.grid_shapes[level][0]
    if crop % cell or crop > side:
        raise ValueError(f"crop must be a multiple of {cell}, the side of a cell, up to {side}, got {given}")


class CheckedDataset(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked as they are read.

    Args:
        batches: the data set.
        check: a `BatchCheck`.
    """

    def __init__(self, batches: keras.utils.PyDataset, check: BatchCheck):
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self.batches, self.check = batches, check

    @property
    def num_batches(self) -> int | None:
        return self.batches.num_batches

    def __getitem__(self, index: int) -> np.ndarray | tuple:
        return self.check.batch(self.batches[index])

    def on_epoch_begin(self) -> None:
        self.batches.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.batches.on_epoch_end()


@contextlib.contextmanager
def value_errors() -> Iterator[None]:
    """Where batches of a data set are read: a ValueError inside it, which becomes TensorFlow's own error, is
    one again."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        message = str(error)
        start = message.find("ValueError: ")
        if start < 0:
            raise
        raise ValueError(message[start + len("ValueError: ") :].splitlines()[0]) from error


def check_codes_have_auxiliary(model: HierarchicalModel, what: str) -> None:
    """A ValueError where the main decoder trained the codes: such a model is for comparison only."""
    if not model.has_auxiliary(model.num_levels):
        raise ValueError(f"{what} needs codes learned by auxiliary decoders, got a model trained end to end")


def check_codes(codes: np.ndarray, shape: tuple[int, int], codebook_size: int) -> np.ndarray:
    """Returns `codes` as int32 `(B, h, w)`; a ValueError where shape, dtype or range is wrong."""
    codes = np.asarray(codes)
    if codes.ndim != 3 or codes.shape[1:] != tuple(shape):
        raise ValueError(f"codes must have shape (B, {shape[0]}, {shape[1]}), got {codes.shape}")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be integers, got dtype {codes.dtype}")
    if codes.size and (codes.min() < 0 or codes.max() >= codebook_size):
        raise ValueError(
            f"codes must lie in 0..{codebook_size - 1}, got values {codes.min()} to {codes.max()}"
        )
    return codes.astype("int32")


def check_level(level: int, count: int) -> int:
    """Returns `level`, an int in 1..count; a ValueError otherwise."""
    if count == 0:
        raise ValueError(f"this model is flat: it has no levels and no codes, got level {level!r}")
    if isinstance(level, bool) or not isinstance(level, (int, np.integer)) or not 1 <= level <= count:
        raise ValueError(f"level must be an int in 1..{count}, got {level!r}")
    return int(level)
