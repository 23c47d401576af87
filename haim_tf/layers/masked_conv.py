"""Masked (causal) convolution over a raster-ordered grid, whole-grid and step by step."""

import math
from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_int, require_kernel_size
from haim_tf.layers.types import Cache, Shape, Tensor


@keras.saving.register_keras_serializable(package="haim_tf")
class MaskedConv2D(keras.layers.Layer):
    """Convolution whose output sees only grid elements that come earlier in raster order.

    A kernel of size `(kh, kw)` covers the `kh - 1` rows above (all `kw` columns, centred) and, of the
    current row, the `kw // 2` columns to the left plus, with `include_center`, the position itself.
    There are no masked weights: `kernel_above` and `kernel_row` hold exactly the taps in use.

    The incremental form serves the sampler. It takes and returns an explicit cache: `start_row` computes
    what the finished rows contribute to the whole next row, in one convolution; `write` stores the input
    at one position of the current row and `read` returns the output at one, from the row's own taps alone.

    Args:
        filters: number of output channels.
        kernel_size: `(kh, kw)`; `kh >= 1`, `kw` odd.
        include_center: whether a position sees its own input. `False` for the first layer of a network.
        wrap: whether the taps left of a row's start are the end of the row above it, as in raster order, and
            not zeros. Then every position but the first sees the one just before it (given `kw >= 3`).

    Shapes (`B` batch, `H, W` grid, `C` channels): input `(B, H, W, C)`, output `(B, H, W, filters)`.

    Raises:
        ValueError: an argument that is not as stated, or a kernel that has no taps.

    Example:
        >>> layer = MaskedConv2D(8, (2, 3), include_center=False)
        >>> tuple(layer(keras.random.normal((1, 5, 5, 3))).shape)
        (1, 5, 5, 8)

    Reference: van den Oord et al., "Pixel recurrent neural networks", 2016 (masked convolutions); the
    incremental form follows Ramachandran et al., "Fast generation for convolutional autoregressive
    models", 2017.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[int, int],
        include_center: bool = True,
        wrap: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = require_int("filters", filters, low=1)
        self.kernel_size = require_kernel_size("kernel_size", kernel_size)
        self.include_center = bool(include_center)
        self.wrap = bool(wrap)
        height, width = self.kernel_size
        self.reach = width // 2
        self.row_taps = self.reach + self.include_center
        if height == 1 and self.row_taps == 0:
            raise ValueError(
                f"kernel_size must be larger without the centre: there are no taps, got {self.kernel_size}"
            )

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        height, width = self.kernel_size
        taps = (height - 1) * width + self.row_taps
        limit = math.sqrt(6.0 / (taps * (channels + self.filters)))
        initializer = keras.initializers.RandomUniform(-limit, limit)
        self.kernel_above = self.kernel_row = None
        if height > 1:
            self.kernel_above = self.add_weight(
                name="kernel_above",
                shape=(height - 1, width, channels, self.filters),
                initializer=initializer,
            )
        if self.row_taps:
            self.kernel_row = self.add_weight(
                name="kernel_row", shape=(1, self.row_taps, channels, self.filters), initializer=initializer
            )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def _with_ends(self, inputs):
        """Rows with the end of the row above put in front of each."""
        padded = ops.pad(inputs, [[0, 0], [0, 0], [self.reach, 0], [0, 0]])
        ends = ops.pad(padded[:, :-1, -self.reach :], [[0, 0], [1, 0], [0, 0], [0, 0]])
        return ops.concatenate([ends, inputs], axis=2)

    def call(self, inputs: Tensor) -> Tensor:
        height, width = self.kernel_size
        left, right = self.reach, self.reach
        if self.wrap and left:
            inputs, left = self._with_ends(inputs), 0
        if height == 1:
            kernel, right = ops.convert_to_tensor(self.kernel_row), 0
            if not self.include_center:
                inputs = inputs[:, :, :-1]
        else:
            # One convolution over all rows: its few zero taps cost less than a second pass over the input.
            missing = [[0, 0], [0, width - self.row_taps], [0, 0], [0, 0]]
            kernel = ops.convert_to_tensor(self.kernel_above)
            if self.row_taps:
                row = ops.pad(ops.convert_to_tensor(self.kernel_row), missing)
                kernel = ops.concatenate([kernel, row], axis=0)
            else:
                inputs = inputs[:, :-1]
        inputs = ops.pad(inputs, [[0, 0], [height - 1, 0], [left, right], [0, 0]])
        return ops.add(ops.conv(inputs, kernel, padding="valid"), ops.convert_to_tensor(self.bias))

    def init_cache(self, batch_size: int, width: int) -> Cache:
        """Zero cache for a new grid of the given width, and the row's own taps as one matrix.

        Example:
            >>> layer = MaskedConv2D(8, (2, 3))
            >>> layer.build((None, 4, 4, 3))
            >>> cache = layer.init_cache(batch_size=1, width=4)
            >>> tuple(cache["row"].shape)  # With room for the kernel on both sides.
            (1, 6, 3)
        """
        channels = (self.kernel_row if self.kernel_above is None else self.kernel_above).shape[2]
        padded = width + 2 * self.reach
        cache = {
            "rows": ops.zeros((batch_size, self.kernel_size[0] - 1, padded, channels), self.compute_dtype),
            "row": ops.zeros((batch_size, padded, channels), self.compute_dtype),
            "above": ops.zeros((batch_size, width, self.filters), self.compute_dtype),
        }
        if self.kernel_row is not None:
            # Made here, not at each position: XLA fuses a reshape into a matrix-vector product, and what
            # comes out is a plain loop, many times slower.
            kernel = ops.cast(ops.convert_to_tensor(self.kernel_row), self.compute_dtype)
            cache["taps"] = ops.reshape(kernel, (self.row_taps * channels, self.filters))
        return cache

    def grid_width(self, cache: Cache) -> int:
        """The width of the grid that a cache is for, an int.

        Example:
            >>> layer = MaskedConv2D(8, (2, 3))
            >>> layer.build((None, 4, 4, 3))
            >>> cache = layer.init_cache(batch_size=1, width=4)
            >>> layer.grid_width(cache)
            4
        """
        return cache["above"].shape[1]

    def start_row(self, cache: Cache) -> Cache:
        """Takes the row just written into the finished rows; returns the cache of the next row.

        Example:
            >>> layer = MaskedConv2D(8, (2, 3))
            >>> layer.build((None, 4, 4, 3))
            >>> cache = layer.init_cache(batch_size=1, width=4)
            >>> tuple(layer.start_row(cache)["above"].shape)
            (1, 4, 8)
        """
        rows, row = cache["rows"], cache["row"]
        bias = ops.cast(ops.convert_to_tensor(self.bias), self.compute_dtype)
        fresh = ops.zeros_like(row)
        if self.wrap and self.reach:
            end = row[:, self.reach : row.shape[1] - self.reach][:, -self.reach :]
            fresh = ops.slice_update(fresh, (0, self.reach - end.shape[1], 0), end)
        if self.kernel_above is None:
            return {**cache, "row": fresh, "above": ops.zeros_like(cache["above"]) + bias}
        rows = ops.concatenate([rows[:, 1:], row[:, None]], axis=1)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel_above), self.compute_dtype)
        above = ops.conv(rows, kernel, padding="valid")[:, 0] + bias
        return {**cache, "rows": rows, "row": fresh, "above": above}

    def write(self, cache: Cache, inputs: Tensor, column: Tensor | int) -> Cache:
        """Stores the inputs `(B, C)` of one position of the current row.

        Example:
            >>> layer = MaskedConv2D(8, (2, 3))
            >>> layer.build((None, 4, 4, 3))
            >>> cache = layer.init_cache(batch_size=1, width=4)
            >>> cache = layer.write(cache, np.ones((1, 3), "float32"), column=0)
            >>> float(np.sum(cache["row"]))
            3.0
        """
        inputs = ops.cast(inputs, self.compute_dtype)
        row = ops.slice_update(cache["row"], (0, column + self.reach, 0), inputs[:, None])
        return {**cache, "row": row}

    def read(self, cache: Cache, column: Tensor | int, parts: int = 1) -> Tensor | list[Tensor]:
        """Output `(B, filters)` at one position; its taps of the current row must have been written.

        With `parts`, a divisor of `filters`, it comes as a list of so many equal shares of the channels.

        Example:
            >>> layer = MaskedConv2D(8, (2, 3))
            >>> layer.build((None, 4, 4, 3))
            >>> cache = layer.init_cache(batch_size=1, width=4)
            >>> cache = layer.write(layer.start_row(cache), np.ones((1, 3), "float32"), column=0)
            >>> tuple(layer.read(cache, column=0).shape)
            (1, 8)
        """
        batch_size, _, channels = cache["row"].shape
        size = self.filters // parts
        # Each share of the finished rows' is sliced out by itself. Of one slice that is then split, XLA makes
        # a loop over single numbers: a gate that follows takes four to seven times as long.
        outputs = [
            ops.slice(cache["above"], (0, column, i * size), (batch_size, 1, size))[:, 0]
            for i in range(parts)
        ]
        if self.kernel_row is not None:
            window = ops.slice(cache["row"], (0, column, 0), (batch_size, self.row_taps, channels))
            window = ops.reshape(window, (batch_size, self.row_taps * channels))
            taps = ops.split(ops.matmul(window, cache["taps"]), parts, axis=-1)
            outputs = [above + row for above, row in zip(outputs, taps, strict=True)]
        return outputs[0] if parts == 1 else outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "include_center": self.include_center,
            "wrap": self.wrap,
        }
