"""Causal self-attention over a raster-ordered grid, whole-grid and step by step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from haim_tf.checks import require_positive_integers
from haim_tf.layers.types import Cache, Shape, Tensor

# Added to the scores of positions that are not to be seen: in the range of every float type, and the softmax
# makes exactly zero of it.
NEVER = -3e4


def position_features(height: int, width: int, frequencies: int = 6) -> np.ndarray:
    """Fixed sinusoids of row and column, float32 `(height * width, 4 * frequencies)`.

    Wavelengths double from 4 to `2 ** (frequencies + 1)` positions, so the features of a position do not
    depend on the size of the grid.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    rates = 2 * np.pi / 2.0 ** np.arange(2, frequencies + 2)
    angles = np.concatenate([rows[:, None] * rates, columns[:, None] * rates], axis=1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")


@keras.saving.register_keras_serializable(package="haim_tf")
class CausalAttention2D(keras.layers.Layer):
    """Multi-head attention in which a position attends to itself and all earlier ones in raster order.

    Queries and keys carry fixed sinusoidal positions, so that attention can look at a place, not only at
    a content. The softmax is float32 whatever the dtype policy. Attention closes the blind spot that a
    stack of `MaskedConv2D` has (earlier positions far to the right in the rows just above).

    Args:
        heads: number of heads.
        key_dim: width of a head's queries, keys and values.

    Shapes: input `(B, H, W, C)`, output `(B, H, W, C)`. The incremental form keeps keys and values of all
    `H * W` positions in an explicit cache.

    Raises:
        ValueError: an argument that is not an integer of at least 1.

    Example:
        >>> tuple(CausalAttention2D(heads=2, key_dim=8)(keras.random.normal((1, 4, 4, 16))).shape)
        (1, 4, 4, 16)

    Reference: Chen et al., "PixelSNAIL", 2018; Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(self, heads: int, key_dim: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads, self.key_dim = require_positive_integers(heads=heads, key_dim=key_dim)
        size = self.heads * self.key_dim
        self.project = keras.layers.Dense(3 * size, use_bias=False, dtype=self.dtype_policy, name="project")
        self.position = keras.layers.Dense(2 * size, use_bias=False, dtype=self.dtype_policy, name="position")

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        self.project.build((None, channels))
        self.position.build((None, position_features(1, 1).shape[-1]))
        self.merge = keras.layers.Dense(
            channels,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(0.1),
            dtype=self.dtype_policy,
            name="merge",
        )
        self.merge.build((None, self.heads * self.key_dim))

    def _positions(self, height, width):
        """Projected positions of queries and keys, each `(H * W, heads * key_dim)`."""
        features = ops.convert_to_tensor(position_features(height, width), self.compute_dtype)
        return ops.split(self.position(features), 2, axis=-1)

    def call(self, inputs: Tensor) -> Tensor:
        _, height, width, channels = inputs.shape
        count, size = height * width, self.heads * self.key_dim

        def split(x):
            return ops.reshape(x, (-1, count, self.heads, self.key_dim))

        flat = ops.reshape(inputs, (-1, count, channels))
        queries, keys, values = ops.split(self.project(flat), 3, axis=-1)
        query_positions, key_positions = self._positions(height, width)
        mixed = ops.dot_product_attention(
            split(queries + query_positions),
            split(keys + key_positions),
            split(values),
            # A sum is quicker than the mask that the function also takes.
            bias=np.triu(np.full((1, 1, count, count), NEVER, "float32"), k=1),
            scale=self.key_dim**-0.5,
            # The fused kernels that JAX has for NVIDIA's GPUs refuse counts such as 49, of a 7x7 grid.
            flash_attention=False,
        )
        return ops.reshape(self.merge(ops.reshape(mixed, (-1, count, size))), (-1, height, width, channels))

    def init_cache(self, batch_size: int, height: int, width: int) -> Cache:
        """Empty cache of keys and values for a new grid, and the positions, projected once.

        Example:
            >>> layer = CausalAttention2D(heads=2, key_dim=8)
            >>> layer.build((None, 4, 4, 16))
            >>> cache = layer.init_cache(batch_size=1, height=4, width=4)
            >>> tuple(cache["values"].shape)  # (B * heads, H * W, key_dim)
            (2, 16, 8)
        """
        count = height * width
        query_positions, key_positions = self._positions(height, width)
        return {
            # As the matrix products of `step` take them: in another order they would be copied every step.
            "keys": ops.zeros((batch_size * self.heads, self.key_dim, count), self.compute_dtype),
            "values": ops.zeros((batch_size * self.heads, count, self.key_dim), self.compute_dtype),
            "query_positions": query_positions,
            "key_positions": key_positions,
        }

    def resize_cache(self, cache: Cache, count: int) -> Cache:
        """The cache with room for `count` positions, the first kept: less room is less to read.

        Example:
            >>> layer = CausalAttention2D(heads=2, key_dim=8)
            >>> layer.build((None, 4, 4, 16))
            >>> cache = layer.init_cache(batch_size=1, height=4, width=4)
            >>> tuple(layer.resize_cache(cache, 8)["values"].shape)
            (2, 8, 8)
        """
        more = max(count - cache["values"].shape[1], 0)
        return {
            **cache,
            "keys": ops.pad(cache["keys"], [[0, 0], [0, 0], [0, more]])[:, :, :count],
            "values": ops.pad(cache["values"], [[0, 0], [0, more], [0, 0]])[:, :count],
        }

    def step(self, cache: Cache, inputs: Tensor, index: Tensor | int) -> tuple[Tensor, Cache]:
        """Output `(B, C)` at raster index `index` for the inputs `(B, C)` there, and the new cache.

        Example:
            >>> layer = CausalAttention2D(heads=2, key_dim=8)
            >>> layer.build((None, 4, 4, 16))
            >>> cache = layer.init_cache(batch_size=1, height=4, width=4)
            >>> outputs, cache = layer.step(cache, np.zeros((1, 16), "float32"), index=0)
            >>> tuple(outputs.shape)
            (1, 16)
        """
        size = self.heads * self.key_dim
        count = cache["values"].shape[1]

        def split(x):
            return ops.reshape(x, (-1, 1, self.key_dim))

        queries, keys, values = ops.split(self.project(inputs), 3, axis=-1)
        queries = split(queries + ops.slice(cache["query_positions"], (index, 0), (1, size)))
        keys = split(keys + ops.slice(cache["key_positions"], (index, 0), (1, size)))
        keys = ops.slice_update(cache["keys"], (0, 0, index), ops.swapaxes(keys, 1, 2))
        values = ops.slice_update(cache["values"], (0, index, 0), split(values))
        scores = ops.cast(ops.matmul(queries, keys), "float32") * self.key_dim**-0.5
        later = ops.cast(ops.arange(count) > index, "float32")
        weights = ops.cast(ops.softmax(scores + later * NEVER), self.compute_dtype)
        mixed = self.merge(ops.reshape(ops.matmul(weights, values), (-1, size)))
        return mixed, {**cache, "keys": keys, "values": values}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads, "key_dim": self.key_dim}
