"""Batches as TensorFlow reads them ahead, without the thread that would keep training waiting at its end."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from haim_tf.backend import is_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

# Batches read ahead.
AHEAD = 2


def prefetched(batches: keras.utils.PyDataset) -> keras.utils.PyDataset | tf.data.Dataset:
    """The batches of a `PyDataset`, all of the same shapes but for their number of images, in their order: a
    `tf.data.Dataset` under TensorFlow, and what was given elsewhere.

    Example:
        >>> data = ImageData(np.zeros((10, 8, 8, 1), "uint8"))
        >>> len(list(prefetched(Batches(data, batch_size=4, steps=3))))
        3
    """
    if not is_tensorflow():
        return batches
    import tensorflow as tf

    count = batches.num_batches

    def read():
        return (batches[i] for i in (itertools.count() if count is None else range(count)))

    def specification(part: Any):
        part = np.asarray(part)
        return tf.TensorSpec((None, *part.shape[1:]), part.dtype)

    signature = keras.tree.map_structure(specification, batches[0])
    dataset = tf.data.Dataset.from_generator(read, output_signature=signature).prefetch(AHEAD)
    size = tf.data.INFINITE_CARDINALITY if count is None else count
    return without_tuning(dataset.apply(tf.data.experimental.assert_cardinality(size)))


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A data set without tf.data's autotuning.

    The thread that tunes sleeps twice as long each time, up to a minute, and when an iterator is done with it
    often sleeps on (TensorFlow 2.21): `fit` would take up to twice its time.

    Example:
        >>> dataset = without_tuning(tf.data.Dataset.range(3))
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
