"""Auxiliary decoders: what the codes are trained by."""

import keras

from haim_tf.layers.types import Tensor
from haim_tf.registry import Registry

# Auxiliary decoders by name, called with `upsampling`, `width`, `blocks`, `channels` or `codebook_size`, and
# what a level's `auxiliary` says.
AUXILIARY_DECODERS = Registry("auxiliary decoder")


class AuxiliaryDecoder(keras.layers.Layer):
    """A layer that is called on code vectors `(B, h, w, D)`, float32, and whose loss trains them.

    What it returns is its own business; `losses` and `reconstruct` take it. A subclass is registered by name
    in `AUXILIARY_DECODERS`, and with Keras.

    Attributes:
        teacher: a layer that the decoder is taught by and that is trained apart, by a loss of its own, or
            `None`.
        trainable_codes: whether it can train codes; False where what that takes has been left behind.
    """

    teacher = None
    trainable_codes = True

    def trained_layers(self) -> list[keras.Layer]:
        """The layers that its loss trains. (No property: Keras saves what it finds in attributes.)

        Example:
            >>> decoder = FeedForwardDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> decoder.trained_layers() == [decoder]
            True
        """
        return [self]

    def losses(self, outputs: Tensor, target: Tensor, training: bool = False) -> dict[str, Tensor]:
        """A dict of float32 scalars: `loss`, which trains codes and decoder, and, where there is a teacher,
        `teacher_loss`.

        Args:
            outputs: what the call returned.
            target: x_{l-1}: float pixels (B, H, W, C) in -1..1, or int codes (B, H, W).
            training: whether this is a training step.

        Example:
            >>> decoder = FeedForwardDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> outputs = decoder(np.zeros((1, 4, 4, 8), "float32"))
            >>> list(decoder.losses(outputs, np.zeros((1, 8, 8, 1), "float32")))
            ['loss']
        """
        return {"loss": self.loss(outputs, target)}

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The scalar that trains codes and decoder, of a decoder without a teacher.

        Example:
            >>> decoder = FeedForwardDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> outputs = decoder(np.zeros((1, 4, 4, 8), "float32"))
            >>> float(decoder.loss(outputs, outputs))
            0.0
        """
        raise NotImplementedError

    def teacher_loss(self, target: Tensor, training: bool = False) -> Tensor:
        """The teacher's own loss, where there is one.

        Raises:
            ValueError: there is no teacher.

        Example:
            >>> decoder = MaskedSelfPredictionDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> tuple(decoder.teacher_loss(np.zeros((1, 8, 8, 1), "float32")).shape)
            ()
        """
        raise ValueError(f"a {type(self).__name__} has no teacher")

    def reconstruct(self, outputs: Tensor) -> Tensor:
        """Its best guess of x_{l-1}: float32 pixels (B, H, W, C) in -1..1, or int32 codes (B, H, W).

        Example:
            >>> decoder = FeedForwardDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> outputs = decoder(np.zeros((1, 4, 4, 8), "float32"))
            >>> tuple(decoder.reconstruct(outputs).shape)
            (1, 8, 8, 1)
        """
        raise NotImplementedError

    def sample(self, outputs: Tensor, seed: int | keras.random.SeedGenerator | None = None) -> Tensor:
        """A draw of x_{l-1}, where the decoder is a distribution.

        Raises:
            ValueError: the decoder is no distribution.

        Example:
            >>> decoder = MaskedSelfPredictionDecoder(upsampling=2, width=4, blocks=1, channels=1)
            >>> outputs = decoder(np.zeros((1, 4, 4, 8), "float32"))
            >>> tuple(decoder.sample(outputs, seed=0).shape)
            (1, 8, 8, 1)
        """
        raise ValueError(f"a {type(self).__name__} has no distribution to sample from")
