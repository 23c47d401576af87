"""What a hierarchy says of images: their codes and their likelihood, on tensors and on arrays."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from haim_tf.backend import compiled_for_any_number, one_by_one
from haim_tf.class_names import Labels
from haim_tf.layers.types import Tensor
from haim_tf.models import inputs

# Pairs of grid and label that a network sees at once where it is asked about every label.
PAIRS = 64


class Inference:
    """Mixin that gives `HierarchicalModel` its `encode`, `log_prob` and `bits_per_dim`, and the tensor code
    behind them that training and use share."""

    # Tensor code, shared by training and use -------------------------------------------------------------

    def elements(self, images: Tensor) -> Tensor:
        """uint8 or float images as the grid x_0: int32 `(B, H, W, C)`, or `(B, H, W)` where the likelihood of
        the pixels takes single numbers.

        Example:
            >>> tuple(haim_tf.load("debug").elements(np.zeros((2, 16, 16, 3), "uint8")).shape)
            (2, 16, 16, 3)
        """
        images = ops.cast(ops.round(ops.cast(images, "float32")), "int32")
        return images if self.networks[0].likelihood.element_shape else images[..., 0]

    def autoencoder_input(self, grid: Tensor, level: int) -> Tensor:
        """What the autoencoder of `level` reads of its grid x_{l-1}: pixels in -1..1, or codes.

        Example:
            >>> model = haim_tf.load("debug")
            >>> float(np.min(model.autoencoder_input(np.zeros((2, 16, 16, 3), "int32"), level=1)))
            -1.0
        """
        if level > 1:
            return grid
        pixels = ops.cast(grid, "float32") / 127.5 - 1.0
        return pixels if len(pixels.shape) == 4 else pixels[..., None]

    def _encode(self, images):
        grid, codes = self.elements(images), []
        for level, autoencoder in enumerate(self.autoencoders, start=1):
            grid = autoencoder.encode(self.autoencoder_input(grid, level))
            codes.append(grid)
        return codes

    def conditioning(
        self, index: int, codes: Tensor | None, labels: Tensor | None
    ) -> dict[str, Tensor | None]:
        """What network `index` (0 the finest decoder, `num_levels` the prior) is told: `codes` of the level
        above it, where there is one, and `labels`, where it takes them.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.conditioning(model.num_levels, None, np.array([3]))["labels"]
            array([3])
        """
        if index < self.num_levels:
            codes = self.decoder_condition(codes, index + 1)
        return {"codes": codes, "labels": labels if self.networks[index].num_classes else None}

    def _log_probs_of(self, lower, codes, labels, index):
        """Log-probability `(B,)` of network `index`'s grids (images at 0), given codes above and labels."""
        lower = lower if index else self.elements(lower)
        conditioning = self.conditioning(index, codes, labels)
        return ops.sum(self.networks[index].log_prob(lower, **conditioning), axis=(1, 2))

    def _log_probs_of_labels(self, lower, codes, index):
        """The same under every label, `(B, num_classes)`: in a loop over some pairs of grid and label, so
        that neither program nor memory grows with the number of labels."""
        count = ops.shape(lower)[0]  # An int, or a tensor in a graph for any number.
        if not self.networks[index].num_classes:
            return ops.tile(self._log_probs_of(lower, codes, None, index)[:, None], (1, self.num_classes))
        pairs = count * self.num_classes
        size = min(pairs, PAIRS) if isinstance(pairs, int) else ops.minimum(pairs, PAIRS)

        def log_probs(chunk):
            # The last chunk is filled up with the last grid's pairs.
            chosen = ops.minimum(chunk * size + ops.arange(size, dtype="int32"), pairs - 1)
            labels, rows = chosen % self.num_classes, chosen // self.num_classes
            above = None if codes is None else ops.take(codes, rows, axis=0)
            return self._log_probs_of(ops.take(lower, rows, axis=0), above, labels, index)

        found = one_by_one(log_probs, -(-pairs // size))
        return ops.reshape(ops.reshape(found, (-1,))[:pairs], (-1, self.num_classes))

    def _log_probs(self, images, labels):
        """`(B, L + 1)`: of each level given the codes above it, finest first, and of the top codes."""
        grids = [images, *self._encode(images), None]
        parts = [self._log_probs_of(*grids[i : i + 2], labels, i) for i in range(self.num_levels + 1)]
        return ops.stack(parts, axis=1)

    def _log_probs_by_label(self, images):
        """The same under every label, `(B, L + 1, num_classes)`; what is told no label runs once."""
        grids = [images, *self._encode(images), None]
        parts = [self._log_probs_of_labels(*grids[i : i + 2], i) for i in range(self.num_levels + 1)]
        return ops.stack(parts, axis=1)

    def _auxiliary_losses(self, images):
        """What each autoencoder's loss is on a batch, float32 `(B, L)`, a row like the other; NaN where it
        has lost the teacher that knows it."""
        grid, losses = self.elements(images), []
        for level, autoencoder in enumerate(self.autoencoders, start=1):
            source = self.autoencoder_input(grid, level)
            if autoencoder.trains:
                outputs = autoencoder(source)
            else:
                outputs = {"codes": autoencoder.encode(source), "loss": ops.full((), math.nan)}
            losses.append(outputs["loss"])
            grid = outputs["codes"]
        return ops.broadcast_to(ops.stack(losses)[None], (ops.shape(images)[0], self.num_levels))

    def decoder_condition(self, codes: Tensor, level: int) -> Tensor:
        """What the main decoder of `level` reads of the codes: themselves, or end to end their vectors.

        Example:
            >>> tuple(haim_tf.load("debug").decoder_condition(np.zeros((2, 8, 8), "int32"), level=1).shape)
            (2, 8, 8)
        """
        autoencoder = self.autoencoders[level - 1]
        return autoencoder.quantizer.lookup(codes) if autoencoder.end_to_end else codes

    def has_auxiliary(self, level: int) -> bool:
        """Whether the codes of a level, and all below, have auxiliary decoders to reconstruct with.

        Example:
            >>> haim_tf.load("debug").has_auxiliary(level=2)
            True
        """
        return not any(autoencoder.end_to_end for autoencoder in self.autoencoders[:level])

    def _auxiliary(self, codes, level):
        for i in range(level, 0, -1):
            codes = self.autoencoders[i - 1].reconstruct(codes)
        return ops.cast(ops.round((codes + 1.0) * 127.5), "uint8")

    def _run(self, name, *arrays, batch_size=64):
        """Runs a method of tensors, compiled, over batches of arrays."""
        if name not in self._programs:
            function = getattr(self, name)
            self._programs[name] = compiled_for_any_number(function, self)
        count, results = len(arrays[0]), []
        if not count:
            # A batch of one that is cut off again: TensorFlow's fused convolutions fail on empty ones.
            arrays = [
                np.zeros((1, *a.shape[1:]), a.dtype) if isinstance(a, np.ndarray) else a for a in arrays
            ]
        for start in range(0, max(count, 1), batch_size):
            batch = [
                ops.convert_to_tensor(a[start : start + batch_size]) if isinstance(a, np.ndarray) else a
                for a in arrays
            ]
            results.append(keras.tree.map_structure(ops.convert_to_numpy, self._programs[name](*batch)))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts)[:count], *results)

    # Codes and likelihoods -------------------------------------------------------------------------------

    def encode(self, images: np.ndarray) -> list[np.ndarray]:
        """Codes of images: a list `[x_1, ..., x_L]` of int32 arrays `(B, h_l, w_l)`.

        Args:
            images: uint8, or float in 0..255, `(B, H, W, C)`.

        Raises:
            ValueError: images of a wrong shape, dtype or range.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images = np.zeros((2, 16, 16, 3), "uint8")
            >>> [codes.shape for codes in model.encode(images)]
            [(2, 8, 8), (2, 4, 4)]
        """
        images = inputs.check_images(images, self.image_shape)
        return self._run("_encode", images) if self.num_levels else []

    def log_prob(self, images: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """Lower bound of the log-likelihood of images, float32 `(B,)`, in nats per image.

        Args:
            images: uint8, or float in 0..255, `(B, H, W, C)`.
            labels: ints `(B,)` in 0..num_classes-1 or names of classes, or one of them. Class-conditional
                models need them, but for those whose networks were trained with labels left out
                (`label_dropout`), where `None` gives the bound without a label.

        Raises:
            ValueError: images of a wrong shape, dtype or range; labels missing, not wanted or unknown.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images = np.zeros((2, 16, 16, 3), "uint8")
            >>> model.log_prob(images, labels=["three", "seven"]).shape
            (2,)
        """
        return self._log_probs_by_part(images, labels).sum(axis=1)

    def bits_per_dim(
        self, images: np.ndarray, labels: Labels | None = None, per_level: bool = False
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Upper bound of the bits per dimension of images: `-log_prob / (H W C ln 2)`.

        Args:
            images, labels: as for `log_prob`.
            per_level: also report each part.

        Returns:
            float32 `(B,)`; with `per_level` a dict of such arrays: `level_1` (pixels given codes), ...,
            `prior` and `total`, their sum.

        Raises:
            ValueError: as `log_prob`.

        Example:
            >>> model = haim_tf.load("debug")
            >>> images = np.zeros((2, 16, 16, 3), "uint8")
            >>> list(model.bits_per_dim(images, labels=3, per_level=True))
            ['level_1', 'level_2', 'prior', 'total']
        """
        bits = -self._log_probs_by_part(images, labels) / (math.prod(self.image_shape) * math.log(2.0))
        if not per_level:
            return bits.sum(axis=1)
        names = [f"level_{i + 1}" for i in range(self.num_levels)] + ["prior"]
        return {**dict(zip(names, bits.T, strict=True)), "total": bits.sum(axis=1)}

    def _log_probs_by_part(self, images, labels):
        images = inputs.check_images(images, self.image_shape)
        labels = self._labels_or_none(labels, len(images), self.networks)
        return self._run("_log_probs", images, labels)

    def _labels_or_none(self, labels, count, networks):
        """Checked labels `(count,)`, those that stand for none where `None` is given and these networks know
        such."""
        none = self.no_label(networks)
        if labels is None and none is not None:
            return np.full(count, none, "int32")
        return inputs.check_labels(labels, self.num_classes, count, self.class_names)
