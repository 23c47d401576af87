"""One level's autoencoder: encoder, vector quantizer and auxiliary decoder."""

import keras

from haim_tf.layers.vector_quantizer import VectorQuantizer
from haim_tf.networks.auxiliary import FeedForwardDecoder
from haim_tf.networks.encoder import Encoder


@keras.saving.register_keras_serializable(package="haim_tf")
class DiscreteAutoencoder(keras.Model):
    """Turns a grid x_{l-1} into a coarser grid of codes x_l, trained by its auxiliary decoder alone.

    The loss is the auxiliary decoder's (squared error on pixels, cross-entropy on lower codes) plus
    `commitment` times the mean squared distance of queries to their code vectors. `compile()` and `fit(x)`
    train it by itself; inside a `HierarchicalModel` it is a part.

    NOTE: it always computes in float32. Half-precision distances change a few percent of the codes, and
    everything above a level must see the same codes in training and in use.

    Args:
        downsampling: how many times coarser the codes are, per axis.
        codebook_size: `K`, number of codes.
        code_dim: `D`, width of a code vector.
        width, blocks: channels and residual blocks of the encoder and, alike, of the auxiliary decoder.
        channels: `C` of the pixels in -1..1 that it encodes (level 1), or `None`.
        lower_codebook_size: codebook size of the codes that it encodes (levels above 1), or `None`.
        commitment: weight of the commitment loss.

    Shapes: input float `(B, H, W, C)` or int `(B, H, W)`; codes int32 `(B, h, w)`.

    Example:
        >>> autoencoder = DiscreteAutoencoder(2, codebook_size=16, code_dim=8, width=16, blocks=1, channels=1)
        >>> autoencoder.encode(keras.random.uniform((1, 8, 8, 1), -1, 1)).shape
        (1, 4, 4)

    Reference: De Fauw, Dieleman, Simonyan 2019, section 3; van den Oord et al., "Neural discrete
    representation learning", 2017.
    """

    def __init__(
        self,
        downsampling,
        codebook_size,
        code_dim,
        width,
        blocks,
        channels=None,
        lower_codebook_size=None,
        commitment=0.25,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self._arguments = {
            "downsampling": downsampling,
            "codebook_size": codebook_size,
            "code_dim": code_dim,
            "width": width,
            "blocks": blocks,
            "channels": channels,
            "lower_codebook_size": lower_codebook_size,
            "commitment": commitment,
        }
        self.channels = channels
        self.lower_codebook_size = lower_codebook_size
        self.commitment = commitment
        self.encoder = Encoder(
            downsampling, width, blocks, code_dim, lower_codebook_size, dtype="float32", name="encoder"
        )
        self.quantizer = VectorQuantizer(codebook_size, code_dim, dtype="float32", name="quantizer")
        self.decoder = FeedForwardDecoder(
            downsampling,
            width,
            blocks,
            channels=channels,
            codebook_size=lower_codebook_size,
            dtype="float32",
            name="decoder",
        )

    def build(self, input_shape):
        code_vectors = (None, None, None, self.quantizer.code_dim)
        self.encoder.build(input_shape)
        self.quantizer.build(code_vectors)
        self.decoder.build(code_vectors)

    def call(self, inputs, training=False):
        """Returns a dict: `codes`, `outputs` of the auxiliary decoder and the scalar `loss`."""
        quantized = self.quantizer(self.encoder(inputs), training=training)
        outputs = self.decoder(quantized["code_vectors"])
        loss = self.decoder.loss(outputs, inputs) + self.commitment * quantized["commitment"]
        return {"codes": quantized["codes"], "outputs": outputs, "loss": loss}

    def encode(self, inputs):
        """Codes x_l, int32 `(B, h, w)`, of a batch of grids x_{l-1}."""
        return self.quantizer(self.encoder(inputs), training=False)["codes"]

    def reconstruct(self, codes):
        """The auxiliary decoder's grid x_{l-1} for codes x_l: pixels in -1..1, or likeliest lower codes."""
        return self.decoder.reconstruct(self.decoder(self.quantizer.lookup(codes)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred["loss"]

    def get_config(self):
        return {**super().get_config(), **self._arguments}
