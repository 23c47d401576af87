"""Non-causal residual blocks: the body of encoders and auxiliary decoders."""

import keras
from keras import ops

from haim_tf.checks import require_positive_integers


@keras.saving.register_keras_serializable(package="haim_tf")
class ResidualBlock(keras.layers.Layer):
    """Adds swish, k x k convolution, swish, 1 x 1 convolution to its input (pre-activation).

    The last convolution starts at a tenth of the usual standard deviation: a fresh block is close to the
    identity, so that deep stacks train from the start, and yet passes gradient to all its weights.

    Args:
        width: channels of input and output.
        hidden: channels between the two convolutions; None: `width`.
        kernel_size: side of the first convolution's kernel.

    Input and output: (B, h, w, width), in the compute dtype of the layer's policy.

    Raises:
        ValueError: an argument is not an integer of at least 1, or the input is not (B, h, w, width).

    Example:
        >>> block = ResidualBlock(width=8, hidden=4)
        >>> tuple(block(np.zeros((2, 7, 7, 8), "float32")).shape)
        (2, 7, 7, 8)

    Reference: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027.
    """

    def __init__(self, width, hidden=None, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        require_positive_integers(width=width, kernel_size=kernel_size)
        if hidden is not None:
            require_positive_integers(hidden=hidden)
        self.width = width
        self.hidden = hidden
        self.kernel_size = kernel_size
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: width})
        self.spatial_conv = keras.layers.Conv2D(
            hidden or width, kernel_size, padding="same", dtype=self.dtype_policy
        )
        self.pointwise_conv = keras.layers.Conv2D(
            width, 1, kernel_initializer=keras.initializers.VarianceScaling(0.01), dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.spatial_conv.build((None, None, None, self.width))
        self.pointwise_conv.build((None, None, None, self.hidden or self.width))

    def call(self, inputs):
        hidden = self.spatial_conv(ops.swish(inputs))
        return inputs + self.pointwise_conv(ops.swish(hidden))

    def get_config(self):
        return super().get_config() | {
            "width": self.width,
            "hidden": self.hidden,
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable(package="haim_tf")
class ResidualStack(keras.layers.Layer):
    """A chain of `ResidualBlock`s.

    Args:
        width: channels of input and output.
        blocks: how many blocks.
        hidden: channels inside each block; None: `width`.
        kernel_size: side of each block's spatial kernel.

    Input and output: (B, h, w, width), in the compute dtype of the layer's policy. As the blocks are
    pre-activation, the output has no non-linearity after its last sum.

    Raises:
        ValueError: an argument is not an integer of at least 1, or the input is not (B, h, w, width).

    Example:
        >>> stack = ResidualStack(width=8, blocks=2)
        >>> tuple(stack(np.zeros((2, 7, 7, 8), "float32")).shape)
        (2, 7, 7, 8)
    """

    def __init__(self, width, blocks, hidden=None, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        require_positive_integers(blocks=blocks)
        self.width = width
        self.blocks = blocks
        self.hidden = hidden
        self.kernel_size = kernel_size
        self.residual_blocks = [
            ResidualBlock(width, hidden, kernel_size, dtype=self.dtype_policy) for _ in range(blocks)
        ]

    def build(self, input_shape):
        for block in self.residual_blocks:
            block.build(input_shape)

    def call(self, inputs):
        for block in self.residual_blocks:
            inputs = block(inputs)
        return inputs

    def get_config(self):
        return super().get_config() | {
            "width": self.width,
            "blocks": self.blocks,
            "hidden": self.hidden,
            "kernel_size": self.kernel_size,
        }
