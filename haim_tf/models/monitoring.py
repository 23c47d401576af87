"""What is seen of a training: the running means of its figures, and a progress bar of the main ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from haim_tf import progress
from haim_tf.layers.types import Tensor


class Trackers:
    """Running means by name. A plain object, so that no metric's state is saved with the weights."""

    def __init__(self, names: Iterable[str]):
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def update(self, values: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        """Takes in the values of a batch, which count by its number of images: the last may be smaller."""
        count = ops.cast(ops.shape(images)[0], "float32")
        for name, value in values.items():
            # A replica that has no image of a batch has no figures either.
            self.means[name].update_state(ops.where(count > 0, value, 0.0), sample_weight=count)
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
        callbacks.append(_Progress())
    return callbacks


class _Progress(keras.callbacks.ProgbarLogger):
    """In place of Keras' bar on standard output: a bar that vanishes and one line per epoch, of the main
    figures, on standard error. With `verbose` 2 the line alone.
    """

    SHOWN = ("loss", "bits_per_dim", "val_loss", "val_bits_per_dim")

    def set_params(self, params):
        super().set_params(params)
        self._bar = self._began = None
        self._fitting = False

    def on_train_begin(self, logs=None):
        self._fitting = True

    def on_train_end(self, logs=None):
        self._close()

    def on_epoch_begin(self, epoch, logs=None):
        self._open()

    def on_train_batch_end(self, batch, logs=None):
        self._move(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._end(f"epoch {epoch + 1}/{self.epochs}", logs)

    def on_test_begin(self, logs=None):
        if not self._fitting:  # Validation is told of in the epoch's line.
            self._open()

    def on_test_batch_end(self, batch, logs=None):
        if not self._fitting:
            self._move(batch, logs)

    def on_test_end(self, logs=None):
        if not self._fitting:
            self._end("evaluated", logs)

    def _open(self):
        self._began = time.monotonic()
        self._bar = progress.Bar(self.target, "steps", show=self.verbose == 1)

    def _move(self, batch, logs):
        self._bar.add(batch + 1 - self._bar.done, **self._brief(logs))

    def _close(self):
        if self._bar is not None:
            self._bar.close()

    def _end(self, what, logs):
        self._close()
        figures = "".join(f"  {name} {value:.4g}" for name, value in self._brief(logs).items())
        seconds = time.monotonic() - self._began
        progress.tell(f"{what}  {self._bar.done} steps  {seconds:.0f} s{figures}")

    def _brief(self, logs):
        return {name: logs[name] for name in self.SHOWN if name in (logs or {})}
