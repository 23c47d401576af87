"""What a stage does at the end of each interval, as a callback: figures, the log, the checkpoint, a line."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from haim_tf import progress
from haim_tf.training.patience import SCORE, has_peaked

if TYPE_CHECKING:
    from haim_tf.training.held_out import HeldOut
    from haim_tf.training.recipe import Recipe
    from haim_tf.training.run_folder import RunFolder

# At least how long between two moves of the bar.
BAR_SECONDS = 0.5


class Checkpoint(keras.callbacks.Callback):
    """At the end of each interval: held-out figures, a row of the log, the checkpoint, a progress line."""

    def __init__(self, run: RunFolder, recipe: Recipe, stage: int, watched: HeldOut | None, verbose: bool):
        super().__init__()
        self.run, self.recipe, self.stage, self.watched = run, recipe, stage, watched
        self.patient = "patience" in recipe["stages"][stage]
        self.interval, self.batch_size = recipe["interval"], recipe["stages"][stage]["batch_size"]
        self.steps = recipe["stages"][stage]["steps"]
        # On a terminal a bar moves within the interval; elsewhere one line an interval is enough.
        self.show_line, self.show_bar = verbose, verbose and progress.is_terminal()
        # Else Keras would wait for the figures after every call of the device.
        self.async_safe = not self.show_bar

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = self.shown = time.monotonic()
        if self.show_bar:
            self.bar = progress.Bar(self.interval, "steps")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # A figure read from an accelerator waits until it is known: not at every step.
        if self.show_bar and (time.monotonic() - self.shown > BAR_SECONDS or batch + 1 == self.interval):
            self.shown = time.monotonic()
            self.bar.add(batch + 1 - self.bar.done, loss=float(logs["loss"]))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.show_bar:
            self.bar.close()
        seconds = max(time.monotonic() - self.started, 1e-3)
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if self.watched is not None:
            logs.update(self.watched.figures(self.model))
        step = (epoch + 1) * self.interval
        row = {"stage": self.stage, "step": step, "seconds": round(seconds, 1), **logs}
        _check_finite(self.model, row)
        if self.patient and logs[SCORE] < self.run.best["score"]:
            self.run.save_best(self.model, self.stage, step, logs[SCORE])
        self.run.save(self.model, self.stage, step, row)
        if self.show_line:
            shown = {k: v for k, v in logs.items() if k.startswith(("loss_", "holdout", "perplexity"))}
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            rate = self.interval * self.batch_size / seconds
            place = f"stage {self.stage + 1} step {step}/{self.steps}"
            progress.tell(f"{place}  {rate:.0f} images/s  {text}")
        if has_peaked(self.run, self.recipe, self.stage):
            self.model.stop_training = True


def _check_finite(model, row):
    """A ValueError where training has gone out of bounds: nothing of that is to be kept."""
    wrong = [name for name, value in row.items() if not math.isfinite(value)]
    wrong += [v.path for v in model.trainable_variables if not np.isfinite(ops.convert_to_numpy(v)).all()]
    if wrong:
        raise ValueError(
            f"training went out of bounds in stage {row['stage'] + 1}, by step {row['step']}: {wrong[0]} is "
            "not finite. The checkpoint before stays; a lower learning_rate, or more warmup, is wanted"
        )
