"""Features of images, which distances are measured in: of any Keras model, Inception-v3 among them."""

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import ArrayLike

from haim_tf import progress
from haim_tf.checks import require_int


def extract_features(
    images: ArrayLike, extractor: Callable, batch_size: int = 64, verbose: bool = False
) -> np.ndarray:
    """What a model makes of images, one vector an image.

    Args:
        images: uint8 `(B, H, W, C)`, or an `ImageData`'s `images`.
        extractor: a `keras.Model`, or another function, of images 0..255 `(B, H, W, C)`; whatever shape it
            gives is flattened.
        batch_size: images at once.
        verbose: whether to show a progress bar.

    Returns:
        float32 `(B, F)`.

    Raises:
        ValueError: no images, or no number of them at once.

    Example:
        >>> extract_features(np.zeros((3, 8, 8, 1), "uint8"), keras.layers.Flatten()).shape
        (3, 64)
    """
    batch_size = require_int("batch_size", batch_size, low=1)
    images = np.asarray(images) if isinstance(images, (list, tuple)) else images
    count = len(images)
    if not count:
        raise ValueError("images must be at least one, got none")
    bar = progress.Bar(-(-count // batch_size), "batches", show=verbose)
    features = []
    for start in range(0, count, batch_size):
        batch = np.asarray(images[np.arange(start, min(start + batch_size, count))])
        found = keras.ops.convert_to_numpy(extractor(batch.astype("float32")))
        features.append(found.reshape(len(batch), -1).astype("float32"))
        bar.add(1)
    return np.concatenate(features)


def feature_layer(model: keras.Model, layer: str | None = None) -> keras.Model:
    """A model cut off at one of its layers.

    Args:
        model: a functional `keras.Model` (or `Sequential`), such as a classifier of images 0..255.
        layer: the layer whose output to give, by name; `None`: what goes into the last layer, which for a
            classifier that ends in one dense layer are the features it decides by.

    Raises:
        ValueError: no such layer, or a model of another kind.

    Example:
        >>> feature_layer(small_classifier((28, 28, 1), 10)).output_shape
        (None, 64)
    """
    names = [candidate.name for candidate in model.layers]
    if layer is not None and layer not in names:
        raise ValueError(f"the model has no layer {layer!r}; it has {names}")
    try:
        output = model.layers[-1].input if layer is None else model.get_layer(layer).output
        (images,) = model.inputs  # A Sequential model has no `input` before it is called.
        return keras.Model(images, output)
    except (AttributeError, IndexError, TypeError, ValueError) as error:  # Keras', where there is no graph.
        raise ValueError(
            f"features must be of a functional or sequential Keras model of several layers, got a "
            f"{type(model).__name__}"
        ) from error


def check_extractor(extractor: Callable, image_shape: tuple[int, int, int]) -> None:
    """A ValueError where a Keras model, as far as it tells, takes images of another shape.

    Example:
        >>> check_extractor(small_classifier((28, 28, 1), 10), (28, 28, 1))
    """
    wanted = getattr(extractor, "input_shape", None)
    if not isinstance(wanted, tuple):
        return
    if len(wanted) != 4 or any(w not in (None, s) for w, s in zip(wanted[1:], image_shape, strict=True)):
        raise ValueError(f"the extractor must take images {image_shape}, got one of the input {wanted}")


def inception_features(image_shape: tuple[int, int, int], weights: str | None = "imagenet") -> keras.Model:
    """Inception-v3 up to its mean over positions: 2,048 features of images 0..255 `(B, H, W, C)`.

    Images are resized to 299 x 299 (bilinear, antialiased); grey ones are taken as RGB. Keras downloads the
    weights at first use.

    NOTE: published FIDs come from another training of Inception-v3 and another resizing: figures computed
    with this compare with each other only.

    Args:
        image_shape: `(H, W, C)`, C 1 or 3.
        weights: to `keras.applications.InceptionV3`: `"imagenet"`, a file, or `None` for random ones.

    Example:
        >>> inception_features((64, 64, 3), weights=None).output_shape
        (None, 2048)
    """
    images = keras.Input(image_shape)
    hidden = images
    if image_shape[-1] == 1:
        hidden = keras.layers.Concatenate()([images] * 3)
    hidden = keras.layers.Lambda(
        lambda x: keras.ops.image.resize(x, (299, 299), antialias=True), output_shape=(299, 299, 3)
    )(hidden)
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1)(hidden)
    network = keras.applications.InceptionV3(include_top=False, weights=weights, pooling="avg")
    return keras.Model(images, network(hidden))
