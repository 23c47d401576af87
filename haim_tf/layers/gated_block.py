"""The building block of every autoregressive network here: a gated, conditioned causal residual block."""

from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_int, require_kernel_size, require_number
from haim_tf.layers.masked_conv import MaskedConv2D
from haim_tf.layers.types import Cache, Shape, Tensor


@keras.saving.register_keras_serializable(package="haim_tf")
class GatedResidualBlock(keras.layers.Layer):
    """Causal convolution, conditioning, gate `tanh(a) * sigmoid(b)`, projection, residual connection.

    Args:
        width: channels `C` of input and output.
        kernel_size: of the `MaskedConv2D` (centre included).
        condition_width: channels `E` of a spatial conditioning map, or `None` where there is none.
        vector_width: size `V` of a conditioning vector (a label's embedding), or `None`.
        dropout: rate of the dropout behind the gate, in [0, 1).

    Shapes: input and output `(B, H, W, C)`; `condition` `(B, H, W, E)`; `vector` `(B, V)`.

    Raises:
        ValueError: an argument that is not as stated, or conditioning that is missing or not wanted.

    Example:
        >>> block = GatedResidualBlock(16, (2, 3), vector_width=4)
        >>> tuple(block(np.zeros((1, 4, 4, 16), "float32"), vector=np.zeros((1, 4), "float32")).shape)
        (1, 4, 4, 16)

    Reference: van den Oord et al., "Conditional image generation with PixelCNN decoders", 2016.
    NOTE: unlike there, one stack of convolutions sees the rows above and the row's left part together
    (`MaskedConv2D`); the blind spot that this leaves is closed by `CausalAttention2D` where asked.
    """

    def __init__(
        self,
        width: int,
        kernel_size: tuple[int, int] = (3, 5),
        condition_width: int | None = None,
        vector_width: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.width = width = require_int("width", width, low=1)
        self.kernel_size = require_kernel_size("kernel_size", kernel_size)
        self.condition_width = require_int("condition_width", condition_width, low=1, optional=True)
        self.vector_width = require_int("vector_width", vector_width, low=1, optional=True)
        self.dropout = require_number("dropout", dropout, low=0, below=1)
        policy = self.dtype_policy
        self.conv = MaskedConv2D(2 * width, self.kernel_size, dtype=policy, name="conv")
        self.merge = keras.layers.Dense(
            width, kernel_initializer=keras.initializers.VarianceScaling(0.1), dtype=policy, name="merge"
        )
        self.drop = keras.layers.Dropout(self.dropout, dtype=policy) if self.dropout else None
        self.from_condition = self.from_vector = None
        if self.condition_width:
            self.from_condition = keras.layers.Dense(
                2 * width, use_bias=False, dtype=policy, name="from_condition"
            )
        if self.vector_width:
            self.from_vector = keras.layers.Dense(2 * width, use_bias=False, dtype=policy, name="from_vector")

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != self.width:
            raise ValueError(f"the input must have width={self.width} channels, got shape {input_shape}")
        self.conv.build(input_shape)
        self.merge.build((None, self.width))
        if self.from_condition:
            self.from_condition.build((None, self.condition_width))
        if self.from_vector:
            self.from_vector.build((None, self.vector_width))

    def _gate(self, a, b, training=False):
        hidden = ops.tanh(a) * ops.sigmoid(b)
        if self.drop:
            hidden = self.drop(hidden, training=training)
        return self.merge(hidden)

    def call(
        self,
        inputs: Tensor,
        condition: Tensor | None = None,
        vector: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        for name, given, layer in (
            ("condition", condition, self.from_condition),
            ("vector", vector, self.from_vector),
        ):
            if (given is None) != (layer is None):
                raise ValueError(f"{name} must {'not ' if layer is None else ''}be given to this block")
        hidden = self.conv(inputs)
        if self.from_condition:
            hidden = hidden + self.from_condition(condition)
        if self.from_vector:
            hidden = hidden + self.from_vector(vector)[:, None, None]
        return inputs + self._gate(*ops.split(hidden, 2, axis=-1), training)

    def init_cache(self, batch_size: int, width: int) -> Cache:
        """Zero cache for a new grid of the given width.

        Example:
            >>> block = GatedResidualBlock(16)
            >>> block.build((None, 4, 4, 16))
            >>> cache = block.init_cache(batch_size=1, width=4)
            >>> tuple(cache["row"].shape)  # With room for the kernel on both sides.
            (1, 8, 16)
        """
        return self.conv.init_cache(batch_size, width)

    def start_row(self, cache: Cache, condition: Tensor | None = None, vector: Tensor | None = None) -> Cache:
        """Contribution of finished rows and conditioning to the next row; `condition` is its `(B, W, E)`.

        Example:
            >>> block = GatedResidualBlock(16)
            >>> block.build((None, 4, 4, 16))
            >>> cache = block.init_cache(batch_size=1, width=4)
            >>> cache = block.start_row(cache)
            >>> tuple(cache["above"].shape)  # A value and a gate for each channel.
            (1, 4, 32)
        """
        cache = self.conv.start_row(cache)
        above = cache["above"]
        if self.from_condition:
            above = above + self.from_condition(condition)
        if self.from_vector:
            above = above + self.from_vector(vector)[:, None]
        return {**cache, "above": above}

    def step(self, cache: Cache, inputs: Tensor, column: Tensor | int) -> tuple[Tensor, Cache]:
        """Output `(B, C)` at one position of the current row for the inputs there, and the new cache.

        Example:
            >>> block = GatedResidualBlock(16)
            >>> block.build((None, 4, 4, 16))
            >>> cache = block.init_cache(batch_size=1, width=4)
            >>> outputs, cache = block.step(block.start_row(cache), np.zeros((1, 16), "float32"), column=0)
            >>> tuple(outputs.shape)
            (1, 16)
        """
        cache = self.conv.write(cache, inputs, column)
        return inputs + self._gate(*self.conv.read(cache, column, parts=2)), cache

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "width": self.width,
            "kernel_size": list(self.kernel_size),
            "condition_width": self.condition_width,
            "vector_width": self.vector_width,
            "dropout": self.dropout,
        }
