"""The optimizer of a stage: Adam along a cosine, with an average of the weights where the stage wants one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    from haim_tf.layers.types import Tensor


def stage_optimizer(stage: dict[str, Any], trains_codes: bool) -> AveragingAdam:
    """The optimizer that a stage is compiled with; weights are not averaged where they make codes."""
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if stage["warmup"] else stage["learning_rate"],
        decay_steps=max(stage["steps"] - stage["warmup"], 1),
        alpha=0.01,
        warmup_target=stage["learning_rate"] if stage["warmup"] else None,
        warmup_steps=stage["warmup"],
    )
    ema = None if trains_codes else stage["ema"]
    return AveragingAdam(schedule, beta_2=0.99, use_ema=ema is not None, ema_momentum=ema or 0.0)


@keras.saving.register_keras_serializable(package="haim_tf")
class AveragingAdam(keras.optimizers.Adam):
    """Adam whose moving average of the weights warms up: it reaches back `1 / (1 - ema_momentum)` steps, but
    never more than about a tenth of the steps so far, as `tf.train.ExponentialMovingAverage` with
    `num_updates` does."""

    @property
    def ema_momentum(self) -> Tensor | float:
        if not self.built:
            return self._ema_momentum
        steps = ops.cast(self.iterations, "float32")
        return ops.minimum(self._ema_momentum, (1.0 + steps) / (10.0 + steps))

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self._ema_momentum = value

    def get_config(self) -> dict:
        return {**super().get_config(), "ema_momentum": self._ema_momentum}
