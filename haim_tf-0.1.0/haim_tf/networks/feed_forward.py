"""The feed-forward auxiliary decoder: all positions independent given the codes."""

from typing import Any

import keras
from keras import ops

from haim_tf.checks import require_positive_integers
from haim_tf.layers.residual import ResidualStack
from haim_tf.layers.types import Shape, Tensor
from haim_tf.networks.auxiliary import AUXILIARY_DECODERS, AuxiliaryDecoder
from haim_tf.networks.encoder import prime_factors


@AUXILIARY_DECODERS.register("feed_forward")
@keras.saving.register_keras_serializable(package="haim_tf")
class FeedForwardDecoder(AuxiliaryDecoder):
    """Decodes code vectors into x_{l-1}, all positions independent given the codes.

    A 3 x 3 convolution, residual blocks at the low resolution, then one transposed convolution per prime
    factor p of the upsampling (kernel 2p, stride p), with swish before each, and a last 3 x 3 convolution.

    Args:
        upsampling: H / h = W / w, any integer of at least 1.
        width: channels throughout.
        blocks: residual blocks at the low resolution.
        channels: C of the pixels to decode, trained by squared error; or
        codebook_size: K of the lower codes to decode, trained by cross-entropy. Exactly one of the two.

    Input: code vectors (B, h, w, D), float.
    Output: float32 whatever the dtype policy: pixels (B, H, W, C), around -1..1 and not clipped, or logits
    (B, H, W, K).

    Raises:
        ValueError: an argument is not an integer of at least 1; both or none of channels and codebook_size.

    Example:
        >>> decoder = FeedForwardDecoder(upsampling=4, width=16, blocks=1, channels=1)
        >>> outputs = decoder(np.zeros((2, 7, 7, 8), "float32"))
        >>> tuple(decoder.reconstruct(outputs).shape)
        (2, 28, 28, 1)

    Reference: the paper, section 3.1 (feed-forward auxiliary decoder).
    """

    def __init__(
        self,
        upsampling: int,
        width: int,
        blocks: int,
        channels: int | None = None,
        codebook_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_positive_integers(upsampling=upsampling, width=width, blocks=blocks)
        if (channels is None) == (codebook_size is None):
            raise ValueError(
                "exactly one of channels (pixels) and codebook_size (codes) must be given, "
                f"got channels={channels!r}, codebook_size={codebook_size!r}"
            )
        if channels is None:
            require_positive_integers(codebook_size=codebook_size)
        else:
            require_positive_integers(channels=channels)
        self.upsampling = upsampling
        self.width = width
        self.blocks = blocks
        self.channels = channels
        self.codebook_size = codebook_size
        self.input_spec = keras.layers.InputSpec(ndim=4)
        policy = self.dtype_policy
        self.from_codes = keras.layers.Conv2D(width, 3, padding="same", dtype=policy)
        self.stack = ResidualStack(width, blocks, dtype=policy)
        # Mirrors the encoder, whose factors ascend.
        self.upsampling_convs = [
            keras.layers.Conv2DTranspose(width, 2 * p, p, padding="same", dtype=policy)
            for p in reversed(prime_factors(upsampling))
        ]
        self.to_outputs = keras.layers.Conv2D(channels or codebook_size, 3, padding="same", dtype=policy)

    def build(self, input_shape: Shape) -> None:
        grid = (None, None, None, self.width)
        self.from_codes.build(input_shape)
        self.stack.build(grid)
        for conv in self.upsampling_convs:
            conv.build(grid)
        self.to_outputs.build(grid)

    def call(self, code_vectors: Tensor) -> Tensor:
        hidden = self.stack(self.from_codes(code_vectors))
        for conv in self.upsampling_convs:
            hidden = conv(ops.swish(hidden))
        return ops.cast(self.to_outputs(ops.swish(hidden)), "float32")

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the loss that trains codes and decoder, a float32 scalar.

        Args:
            outputs: what the call returned.
            target: float pixels (B, H, W, C) in -1..1: mean squared error per element; or int codes
                (B, H, W): mean cross-entropy in nats per position.

        Raises:
            ValueError: outputs and target differ in shape.
        """
        outputs = ops.cast(outputs, "float32")
        expected = outputs.shape if self.codebook_size is None else outputs.shape[:-1]
        # Sizes unknown while tracing (None) pass; without the check a wrong shape would broadcast.
        matches = len(target.shape) == len(expected) and all(
            given is None or wanted is None or given == wanted
            for given, wanted in zip(target.shape, expected, strict=True)
        )
        if not matches:
            raise ValueError(f"target must have shape {tuple(expected)}, got {tuple(target.shape)}")
        if self.codebook_size is None:
            return ops.mean(ops.square(outputs - ops.cast(target, "float32")))
        return ops.mean(ops.sparse_categorical_crossentropy(target, outputs, from_logits=True))

    def reconstruct(self, outputs: Tensor) -> Tensor:
        """Returns the most likely x_{l-1}: float32 pixels (B, H, W, C) in -1..1, or int32 codes (B, H, W)."""
        if self.codebook_size is None:
            return ops.clip(outputs, -1.0, 1.0)
        return ops.cast(ops.argmax(outputs, axis=-1), "int32")

    def get_config(self) -> dict:
        return super().get_config() | {
            "upsampling": self.upsampling,
            "width": self.width,
            "blocks": self.blocks,
            "channels": self.channels,
            "codebook_size": self.codebook_size,
        }
