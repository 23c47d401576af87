"""One level's autoencoder: encoder, vector quantizer and auxiliary decoder."""

from collections.abc import Mapping
from typing import Any

import keras

from haim_tf.backend import forbid_tensor_float_32
from haim_tf.checks import require_number
from haim_tf.layers.types import Shape, Tensor
from haim_tf.layers.vector_quantizer import VectorQuantizer
from haim_tf.models import inputs
from haim_tf.networks import AUXILIARY_DECODERS
from haim_tf.networks.encoder import Encoder

# No decoder at all: the main decoder trains the codes. For comparison with what the paper proposes.
END_TO_END = "end_to_end"


@keras.saving.register_keras_serializable(package="haim_tf")
class DiscreteAutoencoder(keras.Model):
    """Turns a grid x_{l-1} into a coarser grid of codes x_l, trained by its auxiliary decoder alone.

    The loss is the auxiliary decoder's (for feed-forward: squared error on pixels, cross-entropy on lower
    codes) plus `commitment` times the mean squared distance of queries to their code vectors. `compile()` and
    `fit(x)` train it by itself; inside a `HierarchicalModel` it is a part.

    NOTE: it always computes in float32. Half-precision distances change a few percent of the codes, and
    everything above a level must see the same codes in training and in use. For the same reason making one
    where a GPU computes turns TensorFlow's TF32 off for the whole process.

    Args:
        downsampling: how many times coarser the codes are, per axis.
        codebook_size: `K`, number of codes.
        code_dim: `D`, width of a code vector.
        width, blocks: channels and residual blocks of the encoder and, alike, of the auxiliary decoder.
        channels: `C` of the pixels in -1..1 that it encodes (level 1), or `None`.
        lower_codebook_size: codebook size of the codes that it encodes (levels above 1), or `None`.
        commitment: weight of the commitment loss.
        auxiliary: the auxiliary decoder, a dict: its `kind`, `"feed_forward"` (the default),
            `"masked_self_prediction"` or another name of `networks.AUXILIARY_DECODERS`, and its further
            arguments (`window`, `bins`, `positions`, ...). The kind `"end_to_end"` is no model of the paper
            but what it argues against, for comparison: there is no auxiliary decoder, and inside a
            `HierarchicalModel` the level's main decoder, reading the code vectors, trains the codes.
        decay, revive_below: of the codebook's moving averages, see `VectorQuantizer`.

    Shapes: input float `(B, H, W, C)` or int `(B, H, W)`; codes int32 `(B, h, w)`.

    Raises:
        ValueError: an argument that is not as stated; Keras' global settings are others than its defaults.

    Example:
        >>> autoencoder = DiscreteAutoencoder(2, codebook_size=16, code_dim=8, width=16, blocks=1, channels=1)
        >>> tuple(autoencoder.encode(keras.random.uniform((1, 8, 8, 1), -1, 1)).shape)
        (1, 4, 4)

    Reference: De Fauw, Dieleman, Simonyan 2019, section 3; van den Oord et al., "Neural discrete
    representation learning", 2017.
    """

    def __init__(
        self,
        downsampling: int,
        codebook_size: int,
        code_dim: int,
        width: int,
        blocks: int,
        channels: int | None = None,
        lower_codebook_size: int | None = None,
        commitment: float = 0.25,
        auxiliary: dict[str, Any] | None = None,
        decay: float = 0.99,
        revive_below: float = 0.1,
        **kwargs: Any,
    ):
        inputs.check_settings()
        forbid_tensor_float_32()
        super().__init__(**{**kwargs, "dtype": "float32"})
        commitment = require_number("commitment", commitment, low=0)
        if not isinstance(auxiliary, (Mapping, type(None))):
            raise ValueError(f"auxiliary must be a dict of its kind and arguments, got {auxiliary!r:.60}")
        self._arguments = {
            "downsampling": downsampling,
            "codebook_size": codebook_size,
            "code_dim": code_dim,
            "width": width,
            "blocks": blocks,
            "channels": channels,
            "lower_codebook_size": lower_codebook_size,
            "commitment": commitment,
            "decay": decay,
            "revive_below": revive_below,
            "auxiliary": None if auxiliary is None else dict(auxiliary),
        }
        self.channels = channels
        self.lower_codebook_size = lower_codebook_size
        self.commitment = commitment
        self.encoder = Encoder(
            downsampling, width, blocks, code_dim, lower_codebook_size, dtype="float32", name="encoder"
        )
        self.quantizer = VectorQuantizer(
            codebook_size, code_dim, decay, revive_below=revive_below, dtype="float32", name="quantizer"
        )
        self.decoder = _auxiliary_decoder(
            auxiliary or {},
            upsampling=downsampling,
            width=width,
            blocks=blocks,
            channels=channels,
            codebook_size=lower_codebook_size,
        )
        if not self.trains:
            for layer in self.layers_but_teacher:
                layer.trainable = False

    @property
    def teacher(self) -> keras.Layer | None:
        """The auxiliary decoder's teacher, which is trained apart from the rest, or `None`."""
        return getattr(self.decoder, "teacher", None)

    @property
    def end_to_end(self) -> bool:
        """Whether there is no auxiliary decoder, and the main decoder is to train the codes."""
        return self.decoder is None

    @property
    def trains(self) -> bool:
        """Whether there is what its loss takes: not where the decoder's teacher was dropped."""
        return self.decoder is None or self.decoder.trainable_codes

    @property
    def layers_but_teacher(self) -> list[keras.Layer]:
        """What the autoencoder's loss trains."""
        return [self.encoder, self.quantizer, *(self.decoder.trained_layers() if self.decoder else ())]

    def build(self, input_shape: Shape) -> None:
        code_vectors = (None, None, None, self.quantizer.code_dim)
        self.encoder.build(input_shape)
        self.quantizer.build(code_vectors)
        if self.decoder:
            self.decoder.build(code_vectors)

    def call(self, inputs: Tensor, training: bool = False) -> dict[str, Tensor]:
        """Returns a dict: `codes`, their `code_vectors`, the scalar `loss`; `outputs` of the auxiliary
        decoder where there is one; and `teacher_loss` where there is a teacher."""
        quantized = self.quantizer(self.encoder(inputs), training=training)
        commitment = self.commitment * quantized["commitment"]
        found = {name: quantized[name] for name in ("codes", "code_vectors")}
        if self.end_to_end:
            return {**found, "loss": commitment}
        outputs = self.decoder(quantized["code_vectors"])
        losses = self.decoder.losses(outputs, inputs, training)
        return {**found, "outputs": outputs, **losses, "loss": losses["loss"] + commitment}

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes x_l, int32 `(B, h, w)`, of a batch of grids x_{l-1}.

        Example:
            >>> autoencoder = DiscreteAutoencoder(2, 16, code_dim=8, width=16, blocks=1, channels=1)
            >>> tuple(autoencoder.encode(np.zeros((1, 8, 8, 1), "float32")).shape)
            (1, 4, 4)
        """
        return self.quantizer(self.encoder(inputs), training=False)["codes"]

    def reconstruct(self, codes: Tensor) -> Tensor:
        """The auxiliary decoder's grid x_{l-1} for codes x_l: pixels in -1..1, or likeliest lower codes.

        Raises:
            ValueError: there is no auxiliary decoder.

        Example:
            >>> autoencoder = DiscreteAutoencoder(2, 16, code_dim=8, width=16, blocks=1, channels=1)
            >>> autoencoder.build((None, 8, 8, 1))
            >>> tuple(autoencoder.reconstruct(np.zeros((1, 4, 4), "int32")).shape)
            (1, 8, 8, 1)
        """
        outputs = self._decode(codes)
        return self.decoder.reconstruct(outputs)

    def sample(self, codes: Tensor, seed: int | keras.random.SeedGenerator | None = None) -> Tensor:
        """As `reconstruct`, but drawn from the decoder's distribution, where it has one (masked
        self-prediction).

        Args:
            codes: int `(B, h, w)`.
            seed: an int, a `keras.random.SeedGenerator`, or `None`.

        Raises:
            ValueError: there is no auxiliary decoder, or none that is a distribution.

        Example:
            >>> autoencoder = DiscreteAutoencoder(
            ...     2, 16, 8, 16, 1, channels=1, auxiliary={"kind": "masked_self_prediction", "window": 3})
            >>> autoencoder.build((None, 8, 8, 1))
            >>> tuple(autoencoder.sample(np.zeros((1, 4, 4), "int32"), seed=0).shape)
            (1, 8, 8, 1)
        """
        return self.decoder.sample(self._decode(codes), seed)

    def _decode(self, codes):
        if self.end_to_end:
            raise ValueError("codes trained end to end have no auxiliary decoder to reconstruct with")
        return self.decoder(self.quantizer.lookup(codes))

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: dict[str, Tensor] | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        return y_pred["loss"] + y_pred.get("teacher_loss", 0.0)

    def get_config(self) -> dict:
        return {**super().get_config(), **self._arguments}


def _auxiliary_decoder(arguments, **fixed):
    """The decoder that a configuration describes; a ValueError names what is wrong with it."""
    if arguments.get("kind") == END_TO_END:
        if unknown := sorted(set(arguments) - {"kind"}):
            raise ValueError(f"an {END_TO_END} level takes no further arguments, got {unknown}")
        return None
    return AUXILIARY_DECODERS.make(
        "the auxiliary decoder", arguments, "feed_forward", **fixed, dtype="float32", name="decoder"
    )
