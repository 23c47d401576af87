"""What a stage is watched by: images kept out of training, under the parts that it trains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.models import HierarchicalModel

# Of the held-out images, the last ones; more would tell little more and take long.
WATCHED = 256


class HeldOut:
    """Figures of held-out images, of the parts that a stage trains alone.

    Args:
        model: the `HierarchicalModel` that is trained.
        images: an `ImageData`.
        trained: names of the parts that are trained. Where no codes are among them, the images' codes are
            computed once.
        whole: whether figures are wanted of all networks; those that training cannot change are computed
            once.
    """

    def __init__(self, model: HierarchicalModel, images: ImageData, trained: set[str], whole: bool = False):
        rows = np.arange(max(len(images) - WATCHED, 0), len(images))
        self.images, self.trained = np.asarray(images.images[rows]), trained
        self.labels = images.labels[rows] if model.num_classes else None
        fixed = not trained & model.parts_named(["codes"])
        self._codes = model.encode(self.images) if fixed else None
        networks, self._known = model.parts_named(["decoders", "prior"]), {}
        self._networks = trained & networks
        if whole and fixed:
            self._known = self._bits_per_dim(model, self._codes, networks - trained)
        elif whole:
            self._networks = networks

    def figures(self, model: HierarchicalModel) -> dict[str, float]:
        """A dict of floats: `holdout_bits_per_dim_level_1`, ..., `_prior` of the trained networks, their sum
        `_total` where all networks are trained or wanted, and `holdout_loss_autoencoder_1`, ...
        """
        codes = model.encode(self.images) if self._codes is None else self._codes
        found = {**self._known, **self._bits_per_dim(model, codes, self._networks)}
        if len(found) == len(model.networks):
            found["total"] = sum(found.values())
        found = {f"holdout_bits_per_dim_{name}": value for name, value in found.items()}
        names = [f"autoencoder_{level}" for level in range(1, model.num_levels + 1)]
        if self._codes is None:
            losses = dict(zip(names, model._run("_auxiliary_losses", self.images).mean(axis=0), strict=True))
            for name in names:
                if name in self.trained:
                    found[f"holdout_loss_{name}"] = float(losses[name])
        return found

    def _bits_per_dim(self, model, codes, networks):
        """Bits/dim of the images under each of these networks, floats by `level_1`, ..., `prior`."""
        grids, found = [self.images, *codes, None], {}
        nats_a_bit = math.prod(model.image_shape) * math.log(2.0)
        for index, network in enumerate(model.networks):
            if network.name in networks:
                log_probs = model._run("_log_probs_of", *grids[index : index + 2], self.labels, index)
                name = network.name.replace("decoder", "level")
                found[name] = -float(log_probs.mean()) / nats_a_bit
        return found
