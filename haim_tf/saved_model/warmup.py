"""Warm-up requests: what TensorFlow Serving sends to a new version before others may."""

from typing import Any

import numpy as np

from haim_tf.checks import SAMPLING
from haim_tf.files import varint
from haim_tf.saved_model.program import OWN


def warmup_request(name: str, signature: str, inputs: dict[str, Any], size: int) -> bytes:
    """A `tensorflow.serving.PredictionLog` of one request, serialized; its package is not needed for it."""
    import tensorflow as tf

    def field(number, content):
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    spec = field(1, name.encode()) + field(3, signature.encode())
    request = field(1, spec)
    for key, tensor in example_inputs(inputs, size).items():
        value = tf.make_tensor_proto(tensor).SerializeToString()
        request += field(2, field(1, key.encode()) + field(2, value))
    return field(6, field(1, request))


def example_inputs(inputs: dict[str, Any], size: int) -> dict[str, np.ndarray]:
    """`size` valid examples for the specs of a signature's inputs, NumPy arrays by name."""
    import tensorflow as tf

    arrays = {}
    for name, spec in inputs.items():
        shape = (size, *spec.shape[1:])
        if name == "image_bytes":
            picture = tf.io.encode_png(tf.zeros((1, 1, 3), "uint8")).numpy()
            arrays[name] = np.full(shape, picture, object)
        else:
            fill = OWN if name in SAMPLING else 0
            arrays[name] = np.full(shape, fill, spec.dtype.as_numpy_dtype)
    return arrays
