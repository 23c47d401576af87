"""What every autoregressive network is to those who train it, sample it, complete grids and code with it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from haim_tf.checks import require_int
from haim_tf.layers.types import Cache, Shape, Tensor
from haim_tf.likelihoods import Likelihood
from haim_tf.registry import Registry

# Networks of main decoders and priors by name, called with `likelihood`, `codebook_size`, `upsampling`,
# `num_classes`, `code_dim` and what a model's `decoder` or `prior` says.
NETWORKS = Registry("autoregressive network")


class AutoregressiveNetwork(keras.layers.Layer):
    """A distribution over grids of integers, element after element in raster order, given codes or a label.

    A subclass is registered by name in `NETWORKS` and with Keras, creates every variable in `build()`, which
    it can do without a shape, and runs in two ways that agree: `call` on whole grids, and step by step with
    an explicit cache. `E` is the likelihood's element shape, `P` its number of parameters.

    Args:
        likelihood: a `haim_tf.likelihoods.Likelihood`, the head.
        codebook_size: `K` of the codes that the network is conditioned on, or `None`.
        upsampling: how many times finer the grid is than those codes, per axis.
        num_classes: number of labels that the network is conditioned on, or `None`.
        label_dropout: share of the training examples whose label is replaced by "no label", the index
            `num_classes`: what guidance needs (Ho and Salimans 2022, section 3). 0: never, and there is no
            such index.
        code_dim: `D`: the codes come as their vectors, float `(B, h, w, D)`, so that gradient passes to
            them; or `None`, the rule: as integers.

    Attributes:
        no_label: the label that stands for none, an int, or `None` where there is no such label.
        learns_on_crops: whether a crop of a grid teaches it what the whole grid does: not where it counts
            positions.
        keeps_all_rows: whether its cache grows with the rows (`resize_cache`).

    Shapes: x int `(B, H, W, *E)`; codes int `(B, H / upsampling, W / upsampling)`; labels int `(B,)`; output:
    the head's parameters, float32 `(B, H, W, P)`. Where x is a crop of its grid, codes may be those of the
    whole grid, with the crop's `corner`, int `(B, 2)`, row and column of x's first element.

    Raises:
        ValueError: an argument that is not as stated.
    """

    keeps_all_rows = False
    learns_on_crops = True

    def __init__(
        self,
        likelihood: Likelihood,
        codebook_size: int | None = None,
        upsampling: int = 1,
        num_classes: int | None = None,
        label_dropout: float = 0.0,
        code_dim: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)

        def optional(name, value):
            return None if value is None else require_int(name, value, low=1)

        self.likelihood = likelihood
        self.codebook_size = optional("codebook_size", codebook_size)
        self.upsampling = require_int("upsampling", upsampling, low=1)
        self.num_classes = optional("num_classes", num_classes)
        self.code_dim = optional("code_dim", code_dim)
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout must be in [0, 1), got {label_dropout!r}")
        if label_dropout and not num_classes:
            raise ValueError(f"label_dropout must be 0 without num_classes, got {label_dropout!r}")
        self.label_dropout = label_dropout
        self.no_label = self.num_classes if label_dropout else None
        if label_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def call(
        self,
        x: Tensor,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool = False,
        corner: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def log_prob(
        self,
        x: Tensor,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool = False,
        corner: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of every grid element given the ones before it, nats, float32 `(B, H, W)`.

        Raises:
            ValueError: codes or labels missing, or not wanted.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> tuple(network.log_prob(np.zeros((1, 3, 3), "int32")).shape)
            (1, 3, 3)
        """
        params = self(x, codes=codes, labels=labels, corner=corner, training=training)
        return self.likelihood.log_prob(params, x)

    @property
    def takes_guidance(self) -> bool:
        """Whether what it predicts with a label can be moved away from what it predicts without one.

        Example:
            >>> PixelCNN(Categorical(8), width=4, blocks=1, num_classes=10, label_dropout=0.5).takes_guidance
            True
        """
        return self.no_label is not None and self.likelihood.takes_guidance

    def drop_labels(self, labels: Tensor) -> Tensor:
        """Labels `(B,)` of a training step, each left out with the probability `label_dropout`.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1, num_classes=10, label_dropout=0.5)
            >>> sorted(set(np.asarray(network.drop_labels(np.full(100, 3))).tolist()))  # 10: no label.
            [3, 10]
        """
        if not self.label_dropout:
            return labels
        dropped = keras.random.uniform(ops.shape(labels), seed=self.seed_generator)
        return ops.where(dropped < self.label_dropout, self.no_label, labels)

    def embed_by_codebook(self, elements: np.ndarray | None = None, codes: np.ndarray | None = None) -> None:
        """Starts embeddings from code vectors, where the network has any.

        Args:
            elements: code vectors of the grid's own elements, float `(K, D)`, where they are codes.
            codes: code vectors of the codes that the network is conditioned on, float `(K, D)`.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> network.build()
            >>> network.embed_by_codebook(elements=np.random.default_rng(0).normal(size=(8, 4)))
        """

    def label_layers(self) -> list[keras.Layer]:
        """The layers that a label enters by, a list: first the one that has a row for each label, then those
        that read it. (No property: Keras saves what it finds in attributes.)

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1, num_classes=10, label_dropout=0.5)
            >>> len(network.label_layers())
            2
        """
        return []

    # Step by step: init_cache; then for each row start_row, and for each column of it read and write. -------

    def init_cache(
        self,
        batch_size: int,
        height: int,
        width: int,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Cache:
        """Cache of a fresh grid, a structure of tensors: nothing sampled, conditioning computed once.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> network.build()
            >>> cache = network.init_cache(1, height=2, width=2)
        """
        raise NotImplementedError

    def resize_cache(self, cache: Cache, rows: int) -> Cache:
        """The cache with room for `rows` rows, an int, where it keeps all of them.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1, attention=[0])
            >>> network.build()
            >>> cache = network.resize_cache(network.init_cache(1, height=8, width=8), rows=4)
        """
        return cache

    def start_row(self, cache: Cache, row: Tensor | int) -> Cache:
        """What the finished rows and the conditioning contribute to row `row`.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> network.build()
            >>> cache = network.start_row(network.init_cache(1, height=2, width=2), row=0)
        """
        raise NotImplementedError

    def read(self, cache: Cache, row: Tensor | int, column: Tensor | int) -> tuple[Tensor, Cache]:
        """Parameters `(B, P)` of the element at (row, column), and the new cache.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> network.build()
            >>> cache = network.start_row(network.init_cache(1, height=2, width=2), row=0)
            >>> params, cache = network.read(cache, row=0, column=0)
            >>> tuple(params.shape)
            (1, 8)
        """
        raise NotImplementedError

    def write(self, cache: Cache, x: Tensor, column: Tensor | int) -> Cache:
        """The cache with the element `(B, *E)` just decided at `column` of the current row.

        Example:
            >>> network = PixelCNN(Categorical(8), width=4, blocks=1)
            >>> network.build()
            >>> cache = network.start_row(network.init_cache(1, height=2, width=2), row=0)
            >>> params, cache = network.read(cache, row=0, column=0)
            >>> cache = network.write(cache, np.array([5]), column=0)
        """
        raise NotImplementedError

    def compute_output_shape(
        self, x_shape: Shape, codes_shape: Shape | None = None, labels_shape: Shape | None = None
    ) -> Shape:
        return (*x_shape[:3], self.likelihood.output_size)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "codebook_size": self.codebook_size,
            "upsampling": self.upsampling,
            "num_classes": self.num_classes,
            "label_dropout": self.label_dropout,
            "code_dim": self.code_dim,
        }

    @classmethod
    def from_config(cls, config: dict) -> "AutoregressiveNetwork":
        config = dict(config)
        config["likelihood"] = keras.saving.deserialize_keras_object(config["likelihood"])
        return cls(**config)


def crop_at(grid: Tensor, corner: Tensor, size: Sequence[int]) -> Tensor:
    """A part of each grid: `(B, h, w, ...)` of `(B, H, W, ...)`.

    Args:
        grid: `(B, H, W, ...)`.
        corner: int `(B, 2)`, row and column of the part's first element.
        size: `(h, w)`, ints.
    """
    height, width = grid.shape[1:3]
    corner = ops.cast(corner, "int32")
    rows = corner[:, 0, None, None] + ops.arange(size[0], dtype="int32")[None, :, None]
    columns = corner[:, 1, None, None] + ops.arange(size[1], dtype="int32")[None, None]
    examples = ops.arange(ops.shape(grid)[0], dtype="int32")[:, None, None]
    places = (examples * height + rows) * width + columns
    return ops.take(ops.reshape(grid, (-1, *grid.shape[3:])), places, axis=0)
