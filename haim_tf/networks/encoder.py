"""The encoder of one level: an image, or the codes of the level below, becomes a grid of queries."""

from typing import Any

import keras
from keras import ops

from haim_tf.backend import exact_float32
from haim_tf.checks import require_int, require_positive_integers
from haim_tf.layers.residual import ResidualStack
from haim_tf.layers.types import Shape, Tensor


def prime_factors(number: int) -> list[int]:
    """Returns the prime factors of a positive integer, ascending; [] for 1.

    Example:
        >>> prime_factors(12)
        [2, 2, 3]
    """
    factors, candidate = [], 2
    while number > 1:
        while number % candidate == 0:
            factors.append(candidate)
            number //= candidate
        candidate += 1
    return factors


@keras.saving.register_keras_serializable(package="haim_tf")
class Encoder(keras.layers.Layer):
    """Turns x_{l-1} into the queries (B, h, w, D) that a `VectorQuantizer` makes the codes x_l of.

    Strided convolutions, one per prime factor p of the downsampling (kernel 2p, stride p; for downsampling 1
    a single 3 x 3 convolution), swish between them, then residual blocks and a 1 x 1 convolution. Lower codes
    are embedded first.

    Args:
        downsampling: H / h = W / w, any integer of at least 1.
        width: channels throughout.
        blocks: residual blocks at the low resolution.
        code_dim: D, the width of a query.
        codebook_size: None: the input is pixels; an int: the input is codes in 0..codebook_size-1.

    Input: float pixels (B, H, W, C) in -1..1, or int codes (B, H, W).
    Output: queries (B, H / downsampling, W / downsampling, D), float32 whatever the dtype policy.

    Raises:
        ValueError: an argument is not an integer of at least 1; the input has another rank or kind of dtype;
            H or W is not divisible by the downsampling.

    Example:
        >>> encoder = Encoder(downsampling=4, width=16, blocks=1, code_dim=8)
        >>> tuple(encoder(np.zeros((2, 28, 28, 1), "float32")).shape)
        (2, 7, 7, 8)

    Reference: the paper, section 3; van den Oord et al. 2017, arXiv 1711.00937, section 4.1.
    """

    def __init__(
        self,
        downsampling: int,
        width: int,
        blocks: int,
        code_dim: int,
        codebook_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        downsampling, width, blocks, code_dim = require_positive_integers(
            downsampling=downsampling, width=width, blocks=blocks, code_dim=code_dim
        )
        codebook_size = require_int("codebook_size", codebook_size, low=1, optional=True)
        self.downsampling = downsampling
        self.width = width
        self.blocks = blocks
        self.code_dim = code_dim
        self.codebook_size = codebook_size
        self.input_spec = keras.layers.InputSpec(ndim=4 if codebook_size is None else 3)
        policy = self.dtype_policy
        self.embedding = None
        if codebook_size is not None:
            self.embedding = keras.layers.Embedding(codebook_size, width, dtype=policy)
        kernels = [(2 * p, p) for p in prime_factors(downsampling)] or [(3, 1)]
        self.downsampling_convs = [
            keras.layers.Conv2D(width, kernel, strides, padding="same", dtype=policy)
            for kernel, strides in kernels
        ]
        self.stack = ResidualStack(width, blocks, dtype=policy)
        self.to_queries = keras.layers.Conv2D(code_dim, 1, dtype=policy)

    def build(self, input_shape: Shape) -> None:
        grid = (None, None, None, self.width)
        if self.embedding:
            self.embedding.build(input_shape)
        first, *others = self.downsampling_convs
        first.build(grid if self.embedding else (None, None, None, input_shape[-1]))
        for conv in others:
            conv.build(grid)
        self.stack.build(grid)
        self.to_queries.build(grid)

    def call(self, inputs: Tensor) -> Tensor:
        self._check(inputs)
        with exact_float32():  # Where it computes in float32, codes are the same on every device.
            return self._queries(inputs)

    def _queries(self, inputs):
        hidden = self.embedding(inputs) if self.embedding else inputs
        first, *others = self.downsampling_convs
        hidden = first(hidden)
        for conv in others:
            hidden = conv(ops.swish(hidden))
        return ops.cast(self.to_queries(ops.swish(self.stack(hidden))), "float32")

    def _check(self, inputs):
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if self.embedding and not keras.backend.is_int_dtype(dtype):
            raise ValueError(
                f"the input of an Encoder with a codebook_size must be integer codes, got {dtype}"
            )
        if not self.embedding and not keras.backend.is_float_dtype(dtype):
            raise ValueError(f"the input of an Encoder of pixels must be floats in -1..1, got {dtype}")
        height, width = inputs.shape[1:3]
        if any(side is not None and side % self.downsampling for side in (height, width)):
            raise ValueError(
                f"the grid's height and width must be divisible by the downsampling {self.downsampling}, "
                f"got {height} x {width}"
            )

    def get_config(self) -> dict:
        return super().get_config() | {
            "downsampling": self.downsampling,
            "width": self.width,
            "blocks": self.blocks,
            "code_dim": self.code_dim,
            "codebook_size": self.codebook_size,
        }
