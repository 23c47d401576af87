"""The teacher of masked self-prediction: guesses of every element from those outside a window around it."""

from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_int, require_positive_integers
from haim_tf.layers.types import Shape, Tensor

INTENSITIES = 256
KERNEL_SIZE = 3


class HalfPlaneStack(keras.layers.Layer):
    """Convolutions that see a position's own row and those above it, all columns alike.

    A 3 x 3 convolution, then pre-activated residual blocks of one each: a stack of n blocks reaches
    2 (n + 1) rows up and n + 1 columns to both sides.

    Args:
        width: channels. blocks: residual blocks.

    Input `(B, H, W, C)`, output `(B, H, W, width)`.
    """

    def __init__(self, width: int, blocks: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        policy = self.dtype_policy
        self.convs = [keras.layers.Conv2D(width, KERNEL_SIZE, dtype=policy) for _ in range(blocks + 1)]
        self.pointwise = [
            keras.layers.Dense(
                width, kernel_initializer=keras.initializers.VarianceScaling(0.01), dtype=policy
            )
            for _ in range(blocks)
        ]

    def build(self, input_shape: Shape) -> None:
        inside = (None, None, None, self.width)
        for i, conv in enumerate(self.convs):
            conv.build((None, None, None, input_shape[-1]) if i == 0 else inside)
        for dense in self.pointwise:
            dense.build(inside)

    def call(self, inputs: Tensor) -> Tensor:
        first, *convs = self.convs
        hidden = first(self._pad(inputs))
        for conv, dense in zip(convs, self.pointwise, strict=True):
            hidden = hidden + dense(ops.swish(conv(self._pad(ops.swish(hidden)))))
        return hidden

    def _pad(self, inputs):
        side = KERNEL_SIZE // 2
        return ops.pad(inputs, [[0, 0], [KERNEL_SIZE - 1, 0], [side, side], [0, 0]])


@keras.saving.register_keras_serializable(package="haim_tf")
class MaskedSelfPredictionTeacher(keras.layers.Layer):
    """Guesses every element of a grid from the elements outside a window centred on it, in one pass.

    Four stacks of convolutions (`HalfPlaneStack`, rotated) read the half-planes above, below, left and right
    of a position. Each is shifted so that it ends where the window begins, and only position-wise layers
    join them: the guess depends on nothing inside the window, and on everything outside it within the
    stacks' reach, which is 2 (n + 1) elements from the window for n blocks, and half as far sideways.

    Args:
        window: side s of the window, odd; with 1 only the element itself is hidden.
        width, blocks: channels and residual blocks of each of the four stacks.
        channels, bins: the grid is pixels of so many channels, guessed channel by channel over `bins`
            equal intervals of the intensities; or
        codebook_size: the grid is codes of so many values.

    Call arguments:
        grid: float pixels `(B, H, W, C)` in -1..1, or int codes `(B, H, W)`.
        positions: which positions to guess, int `(n,)` in raster order; `None`: all of them.

    Output: logits, float32 `(B, H, W, C, bins)` or `(B, H, W, K)`; with positions `(B, n, ...)`.

    Raises:
        ValueError: an argument that is not as stated.

    Example:
        >>> teacher = MaskedSelfPredictionTeacher(window=5, width=8, blocks=1, channels=3, bins=32)
        >>> tuple(teacher(np.zeros((2, 16, 16, 3), "float32")).shape)
        (2, 16, 16, 3, 32)

    Reference: the paper, section 3.2. NOTE: see `MaskedSelfPredictionDecoder` for what is known of it.
    """

    def __init__(
        self,
        window: int,
        width: int = 32,
        blocks: int = 4,
        channels: int | None = None,
        bins: int | None = None,
        codebook_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        window, width, blocks = require_positive_integers(window=window, width=width, blocks=blocks)
        if window % 2 == 0:
            raise ValueError(f"window must be odd, got {window}")
        channels, bins, codebook_size = check_target(channels, bins, codebook_size)
        self.window = window
        self.width = width
        self.blocks = blocks
        self.channels = channels
        self.bins = bins
        self.codebook_size = codebook_size
        policy = self.dtype_policy
        self.embedding = None
        if codebook_size is not None:
            self.embedding = keras.layers.Embedding(codebook_size, width, dtype=policy)
        self.stacks = [HalfPlaneStack(width, blocks, dtype=policy) for _ in range(4)]
        self.merge = keras.layers.Dense(2 * width, activation="swish", dtype=policy)
        self.hidden = keras.layers.Dense(2 * width, activation="swish", dtype=policy)
        self.to_logits = keras.layers.Dense(codebook_size or channels * bins, dtype="float32")

    def build(self, input_shape: Shape) -> None:
        if self.embedding:
            self.embedding.build(input_shape)
        for stack in self.stacks:
            stack.build((None, None, None, self.width if self.embedding else self.channels))
        self.merge.build((None, 4 * self.width))
        self.hidden.build((None, 2 * self.width))
        self.to_logits.build((None, 2 * self.width))

    def call(self, grid: Tensor, positions: Tensor | None = None) -> Tensor:
        if self.embedding:
            grid = self.embedding(grid)
        _, height, width, _ = grid.shape
        sides = []
        for turns, stack in enumerate(self.stacks):
            sides.append(_rotate(self._shift(stack(_rotate(grid, turns))), -turns))
        seen = ops.swish(ops.concatenate(sides, axis=-1))
        if positions is not None:
            seen = take_positions(seen, positions)
        logits = self.to_logits(self.hidden(self.merge(seen)))
        return logits if self.codebook_size else split_channels(logits, self.channels)

    def _shift(self, hidden):
        """Moves what a position sees up to its own row down, past the window below that row."""
        rows = hidden.shape[1]
        return ops.pad(hidden, [[0, 0], [self.window // 2 + 1, 0], [0, 0], [0, 0]])[:, :rows]

    def get_config(self) -> dict:
        return super().get_config() | {
            "window": self.window,
            "width": self.width,
            "blocks": self.blocks,
            "channels": self.channels,
            "bins": self.bins,
            "codebook_size": self.codebook_size,
        }


def check_target(
    channels: int | None, bins: int | None, codebook_size: int | None
) -> tuple[int | None, int | None, int | None]:
    """The arguments as ints; a ValueError unless they describe pixels in bins, or codes, and not both."""
    if (channels is None) == (codebook_size is None):
        raise ValueError(
            "exactly one of channels (pixels) and codebook_size (codes) must be given, "
            f"got channels={channels!r}, codebook_size={codebook_size!r}"
        )
    if channels is None:
        return None, bins, require_int("codebook_size", codebook_size, low=1)
    channels, bins = require_positive_integers(channels=channels, bins=bins)
    if bins < 2 or INTENSITIES % bins:
        raise ValueError(f"bins must be a power of 2 from 2 to {INTENSITIES}, got {bins}")
    return channels, bins, None


def _rotate(grid, turns):
    """`(B, H, W, C)` turned by quarters. NOTE: keras 3.15.1's `ops.rot90` is wrong for half a turn."""
    if turns % 4 >= 2:
        grid = ops.flip(grid, axis=(1, 2))
    return ops.flip(ops.transpose(grid, (0, 2, 1, 3)), axis=1) if turns % 2 else grid


def take_positions(grid: Tensor, positions: Tensor) -> Tensor:
    """Elements `(B, n, ...)` of a grid `(B, H, W, ...)` at positions in raster order."""
    count = grid.shape[1] * grid.shape[2]
    return ops.take(ops.reshape(grid, (-1, count, *grid.shape[3:])), positions, axis=1)


def split_channels(logits: Tensor, channels: int) -> Tensor:
    *outside, last = logits.shape
    return ops.reshape(logits, (-1, *outside[1:], channels, last // channels))
