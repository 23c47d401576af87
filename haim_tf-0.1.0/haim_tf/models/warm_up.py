"""The learning rate of `HierarchicalModel.compile()` without arguments."""

import keras
from keras import ops

from haim_tf.layers.types import Tensor


@keras.saving.register_keras_serializable(package="haim_tf")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises evenly from 0 over its first steps, and then stays.

    A fresh Adam moves every weight by the whole rate at its first step, whatever the gradient's size: that
    throws a trained model out of its place, and it takes long to find back.

    Args:
        learning_rate: the rate after the rise.
        steps: how many steps it rises for.

    Example:
        >>> [round(float(WarmUp(0.1, 4)(step)), 3) for step in (0, 1, 3, 9)]
        [0.025, 0.05, 0.1, 0.1]
    """

    def __init__(self, learning_rate: float, steps: int):
        self.learning_rate = learning_rate
        self.steps = steps

    def __call__(self, step: Tensor | int) -> Tensor:
        share = (ops.cast(step, "float32") + 1.0) / self.steps
        return self.learning_rate * ops.minimum(share, 1.0)

    def get_config(self) -> dict:
        return {"learning_rate": self.learning_rate, "steps": self.steps}
