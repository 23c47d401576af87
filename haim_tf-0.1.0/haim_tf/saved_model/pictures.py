"""Picture files as images, in TensorFlow's own operations, for graphs that run without this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haim_tf.layers.types import Tensor

if TYPE_CHECKING:
    from haim_tf.data.image_files import ImageShape


def decode_image(file: Tensor, image_shape: ImageShape) -> Tensor:
    """The picture in a PNG, JPEG or GIF file, uint8 `(H, W, C)`; equal to Pillow's where the size fits. Of a
    GIF that moves it is the first."""
    import tensorflow as tf

    height, width, channels = image_shape
    image = tf.cond(
        tf.strings.substr(file, 0, 4) == b"GIF8",
        lambda: tf.io.decode_image(file, channels=3, expand_animations=False),
        # It reads PNG as well, and with this method JPEG as Pillow does.
        lambda: tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"),
    )
    if channels == 1:
        weights = tf.constant([19595, 38470, 7471])  # ITU-R 601 in 16 bits, as Pillow has them.
        image = (tf.reduce_sum(tf.cast(image, "int32") * weights, axis=-1, keepdims=True) + 0x8000) // 0x10000
    found = tf.shape(image)

    def fit():
        # The largest part around the centre that has the aspect ratio wanted.
        scale = tf.reduce_min(tf.cast(found[:2], "float32") / (height, width))
        size = tf.maximum(tf.cast(tf.round(scale * (height, width)), "int32"), 1)
        top, left = tf.unstack((found[:2] - size) // 2)
        part = image[top : top + size[0], left : left + size[1]]
        resized = tf.image.resize(tf.cast(part, "float32"), (height, width), "lanczos3", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), "int32")

    fits = tf.reduce_all(found[:2] == (height, width))
    image = tf.cond(fits, lambda: tf.cast(image, "int32"), fit)
    return tf.cast(tf.ensure_shape(image, image_shape), "uint8")
