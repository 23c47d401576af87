"""The losses of a hierarchy's parts, behind stop-gradients, and what is worth watching."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from haim_tf.layers.types import Tensor
from haim_tf.networks.autoregressive import crop_at


class Losses:
    """Mixin that gives `HierarchicalModel` the losses that `fit` lowers."""

    def losses_and_statistics(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        codes: Sequence[Tensor] | None = None,
        corner: Tensor | None = None,
        training: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every part's loss and what is worth watching, as scalars by name.

        Losses: an autoencoder's is its auxiliary loss plus commitment; a teacher's and a network's its mean
        negative log-likelihood in nats per element of its grid (pixels count each channel). In training,
        frozen parts have no loss.

        Args:
            images: `(B, H, W, C)`, or crops of them.
            labels: `(B,)`, or `None`.
            codes: the images' codes where they are known (no encoder runs then), level by level from the
                finest. They may end below the top: what is above them has no loss.
            corner: where images are crops, the row and column of their first pixel, int `(B, 2)`, on the
                lines of the coarsest codes; codes are those of the whole images.

        Raises:
            ValueError: an end-to-end level's codes are trained and its main decoder is frozen.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images, labels = np.zeros((2, 16, 16, 3), "uint8"), np.array([0, 1])
            >>> losses, statistics = model.losses_and_statistics(images, labels)
            >>> list(losses)
            ['autoencoder_1', 'decoder_1', 'autoencoder_2', 'decoder_2', 'prior']
        """
        losses, statistics, bits, parts = {}, {}, [], self.parts
        known, grid = codes, self.elements(images)
        dimensions = math.prod(grid.shape[1:]) * math.log(2.0)

        def network_loss(name, network, **conditioning):
            if training and not network.trainable_variables:
                return
            conditioning["labels"] = labels if network.num_classes else None
            nats = ops.mean(ops.sum(-network.log_prob(grid, training=training, **conditioning), axis=(1, 2)))
            losses[name] = nats / math.prod(grid.shape[1:])
            bits.append(nats / dimensions)

        for i, (autoencoder, decoder) in enumerate(
            zip(self.autoencoders, self.decoders, strict=True), start=1
        ):
            if known is not None:
                if i > len(known):
                    return losses, statistics
                codes = ops.cast(known[i - 1], "int32")
                conditioning = {"codes": self.decoder_condition(codes, i), "corner": corner}
                network_loss(f"decoder_{i}", decoder, **conditioning)
                if corner is not None:
                    factor = self.autoencoders[i - 1].encoder.downsampling
                    corner = corner // factor
                    codes = crop_at(codes, corner, [side // factor for side in grid.shape[1:3]])
                grid = codes
                continue
            source = self.autoencoder_input(grid, i)
            learns = parts[f"autoencoder_{i}"].trainable_variables if training else autoencoder.trains
            teaches = autoencoder.teacher and (not training or autoencoder.teacher.trainable_variables)
            if learns:
                outputs = autoencoder(source, training=training)
                codes = outputs["codes"]
                losses[f"autoencoder_{i}"] = outputs["loss"]
                if teaches:
                    losses[f"teacher_{i}"] = outputs["teacher_loss"]
                statistics[f"perplexity_{i}"] = autoencoder.quantizer.perplexity()
                statistics[f"active_fraction_{i}"] = autoencoder.quantizer.active_fraction()
            else:
                codes = autoencoder.encode(source)
                if teaches:
                    losses[f"teacher_{i}"] = autoencoder.decoder.teacher_loss(source, training)
            codes = ops.stop_gradient(codes)
            condition = self.decoder_condition(codes, i)
            if learns and autoencoder.end_to_end:
                if training and not decoder.trainable_variables:
                    raise ValueError(f"decoder_{i} trains the codes of level {i}: train both, or freeze both")
                condition = outputs["code_vectors"]
            network_loss(f"decoder_{i}", decoder, codes=condition)
            grid = codes
        network_loss("prior", self.prior)
        if len(bits) == len(self.networks):
            statistics["bits_per_dim"] = sum(bits)
        return losses, statistics

    def call(self, inputs: Tensor | dict[str, Any], training: bool = False) -> dict[str, dict[str, Tensor]]:
        """Losses and statistics of a batch: images, or a dict of `images`, `labels` and `codes`."""
        if not isinstance(inputs, dict):
            inputs = {"images": inputs}
        losses, statistics = self.losses_and_statistics(**inputs, training=training)
        return {"losses": losses, "statistics": statistics}
