"""What is seen of a training: the running means of its figures, and a progress bar of the main ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
from keras import ops

from haim_tf.layers.types import Tensor


class Trackers:
    """Running means by name. A plain object, so that no metric's state is saved with the weights."""

    def __init__(self, names: Iterable[str]):
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def update(self, values: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        """Takes in the values of a batch, which count by its number of images: the last may be smaller."""
        count = ops.cast(ops.shape(images)[0], "float32")
        for name, value in values.items():
            self.means[name].update_state(value, sample_weight=count)
        return {name: self.means[name].result() for name in values}


def readied(
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None, verbose: int | str
) -> list[keras.callbacks.Callback] | keras.callbacks.CallbackList:
    """Callbacks with a bar of few figures, where there is one, and the direction of what they monitor."""
    callbacks = [] if callbacks is None else callbacks
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for callback in callbacks:
        monitored = str(getattr(callback, "monitor", "")).removeprefix("val_")
        if getattr(callback, "mode", None) == "auto" and monitored.startswith(("loss", "bits_per_dim")):
            callback.mode = "min"
    if verbose and not any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks):
        callbacks.append(_BriefBar())
    return callbacks


class _BriefBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar, of the figures that tell how training goes."""

    SHOWN = ("loss", "bits_per_dim", "val_loss", "val_bits_per_dim")

    def _brief(self, logs):
        return {name: value for name, value in (logs or {}).items() if name in self.SHOWN}

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._brief(logs))

    def on_test_batch_end(self, batch, logs=None):
        super().on_test_batch_end(batch, self._brief(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._brief(logs))

    def on_test_end(self, logs=None):
        super().on_test_end(self._brief(logs))
