"""Causal self-attention over a raster-ordered grid, whole-grid and step by step."""

import keras
import numpy as np
from keras import ops

NEVER = -1e9


def position_features(height, width, frequencies=6):
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
        shifted: with `True` a position does not see itself at all (for use on raw inputs): it attends to
            earlier ones only, by the query of the one just before; the first position gets zeros.

    Shapes: input `(B, H, W, C)`, output `(B, H, W, C)`. The incremental form keeps keys and values of all
    `H * W` positions in an explicit cache.

    Example:
        >>> CausalAttention2D(heads=2, key_dim=8)(keras.random.normal((1, 4, 4, 16))).shape
        (1, 4, 4, 16)

    Reference: Chen et al., "PixelSNAIL", 2018; Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(self, heads, key_dim, shifted=False, **kwargs):
        super().__init__(**kwargs)
        if heads < 1 or key_dim < 1:
            raise ValueError(f"heads and key_dim must be at least 1, got heads={heads}, key_dim={key_dim}")
        self.heads = heads
        self.key_dim = key_dim
        self.shifted = shifted
        size = heads * key_dim
        self.project = keras.layers.Dense(3 * size, use_bias=False, dtype=self.dtype_policy, name="project")
        self.position = keras.layers.Dense(2 * size, use_bias=False, dtype=self.dtype_policy, name="position")

    def build(self, input_shape):
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

    def _attend(self, queries, keys, values, visible):
        """queries `(B, n, size)`, keys and values `(B, m, size)`, visible `(n, m)` -> `(B, n, size)`."""

        def split(x):
            return ops.reshape(x, (-1, x.shape[1], self.heads, self.key_dim))

        scores = ops.einsum("bnhd,bmhd->bhnm", split(queries), split(keys))
        mixed = ops.einsum("bhnm,bmhd->bnhd", self._weights(scores, visible), split(values))
        return ops.reshape(mixed, (-1, queries.shape[1], self.heads * self.key_dim))

    def _weights(self, scores, visible):
        """Attention weights for scores `(..., n, m)`; visible is float32 `(n, m)` or `(m,)`, 0 or 1."""
        scores = ops.cast(scores, "float32") / np.sqrt(self.key_dim).astype("float32")
        # Multiplying by `visible` too makes a row without any visible position zero, not uniform.
        weights = ops.softmax(scores + (1.0 - visible) * NEVER) * visible
        return ops.cast(weights, self.compute_dtype)

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        count = height * width
        queries, keys, values = ops.split(
            self.project(ops.reshape(inputs, (-1, count, channels))), 3, axis=-1
        )
        if self.shifted:
            queries = ops.pad(queries[:, :-1], [[0, 0], [1, 0], [0, 0]])
        query_positions, key_positions = self._positions(height, width)
        visible = np.tri(count, k=-1 if self.shifted else 0, dtype="float32")
        mixed = self._attend(queries + query_positions, keys + key_positions, values, visible)
        return ops.reshape(self.merge(mixed), (-1, height, width, channels))

    def init_cache(self, batch_size, height, width):
        """Empty cache of keys and values for a new grid, and the positions, projected once."""
        count, size = height * width, self.heads * self.key_dim
        query_positions, key_positions = self._positions(height, width)
        cache = {
            # As the matrix products of `step` take them: in another order they would be copied every step.
            "keys": ops.zeros((batch_size * self.heads, self.key_dim, count), self.compute_dtype),
            "values": ops.zeros((batch_size * self.heads, count, self.key_dim), self.compute_dtype),
            "query_positions": query_positions,
            "key_positions": key_positions,
        }
        if self.shifted:
            cache["last_query"] = ops.zeros((batch_size, size), self.compute_dtype)
        return cache

    def resize_cache(self, cache, count):
        """The cache with room for `count` positions (an int), the first kept: less room is less to read."""
        more = max(count - cache["values"].shape[1], 0)
        return {
            **cache,
            "keys": ops.pad(cache["keys"], [[0, 0], [0, 0], [0, more]])[:, :, :count],
            "values": ops.pad(cache["values"], [[0, 0], [0, more], [0, 0]])[:, :count],
        }

    def step(self, cache, inputs, index):
        """Output `(B, C)` at raster index `index` for the inputs `(B, C)` there, and the new cache.

        With `shifted` the inputs play no part in the output, only in the cache.
        """
        size = self.heads * self.key_dim
        count = cache["values"].shape[1]

        def split(x):
            return ops.reshape(x, (-1, 1, self.key_dim))

        query, keys, values = ops.split(self.project(inputs), 3, axis=-1)
        queries = cache["last_query"] if self.shifted else query
        queries = split(queries + ops.slice(cache["query_positions"], (index, 0), (1, size)))
        keys = split(keys + ops.slice(cache["key_positions"], (index, 0), (1, size)))
        keys = ops.slice_update(cache["keys"], (0, 0, index), ops.swapaxes(keys, 1, 2))
        values = ops.slice_update(cache["values"], (0, index, 0), split(values))
        positions = ops.arange(count)
        visible = ops.cast(positions < index if self.shifted else positions <= index, "float32")
        mixed = ops.matmul(self._weights(ops.matmul(queries, keys), visible), values)
        cache = {**cache, "keys": keys, "values": values}
        if self.shifted:
            cache["last_query"] = query
        return self.merge(ops.reshape(mixed, (-1, size))), cache

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "heads": self.heads,
            "key_dim": self.key_dim,
            "shifted": self.shifted,
        }
