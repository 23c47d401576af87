"""Non-causal residual blocks: the body of encoders and auxiliary decoders."""

from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_int, require_positive_integers
from haim_tf.layers.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="haim_tf")
class ResidualBlock(keras.layers.Layer):
    """Adds swish, 3 x 3 convolution, swish, 1 x 1 convolution to its input (pre-activation).

    The last convolution starts at a tenth of the usual standard deviation: a fresh block is close to the
    identity, so that deep stacks train from the start, and yet passes gradient to all its weights.

    Args:
        width: channels throughout.

    Input and output: (B, h, w, width), in the compute dtype of the layer's policy.

    Raises:
        ValueError: `width` is not an integer of at least 1, or the input is not (B, h, w, width).

    Example:
        >>> block = ResidualBlock(width=8)
        >>> tuple(block(np.zeros((2, 7, 7, 8), "float32")).shape)
        (2, 7, 7, 8)

    Reference: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = require_int("width", width, low=1)
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: self.width})
        self.spatial_conv = keras.layers.Conv2D(self.width, 3, padding="same", dtype=self.dtype_policy)
        self.pointwise_conv = keras.layers.Conv2D(
            self.width,
            1,
            kernel_initializer=keras.initializers.VarianceScaling(0.01),
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shape) -> None:
        for conv in (self.spatial_conv, self.pointwise_conv):
            conv.build((None, None, None, self.width))

    def call(self, inputs: Tensor) -> Tensor:
        hidden = self.spatial_conv(ops.swish(inputs))
        return inputs + self.pointwise_conv(ops.swish(hidden))

    def get_config(self) -> dict:
        return super().get_config() | {"width": self.width}


@keras.saving.register_keras_serializable(package="haim_tf")
class ResidualStack(keras.layers.Layer):
    """A chain of `ResidualBlock`s.

    Args:
        width: channels throughout.
        blocks: how many blocks.

    Input and output: (B, h, w, width), in the compute dtype of the layer's policy. As the blocks are
    pre-activation, the output has no non-linearity after its last sum.

    Raises:
        ValueError: an argument is not an integer of at least 1, or the input is not (B, h, w, width).

    Example:
        >>> stack = ResidualStack(width=8, blocks=2)
        >>> tuple(stack(np.zeros((2, 7, 7, 8), "float32")).shape)
        (2, 7, 7, 8)
    """

    def __init__(self, width: int, blocks: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.blocks = require_positive_integers(width=width, blocks=blocks)
        self.residual_blocks = [
            ResidualBlock(self.width, dtype=self.dtype_policy) for _ in range(self.blocks)
        ]

    def build(self, input_shape: Shape) -> None:
        for block in self.residual_blocks:
            block.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        for block in self.residual_blocks:
            inputs = block(inputs)
        return inputs

    def get_config(self) -> dict:
        return super().get_config() | {"width": self.width, "blocks": self.blocks}
