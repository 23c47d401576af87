"""PixelCNN: the autoregressive network behind main decoders (codes -> lower grid) and priors (top codes)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from haim_tf.checks import require_positive_integers
from haim_tf.layers.causal_attention import CausalAttention2D
from haim_tf.layers.gated_block import GatedResidualBlock
from haim_tf.layers.masked_conv import MaskedConv2D
from haim_tf.layers.residual import ResidualStack
from haim_tf.layers.types import Cache, Shape, Tensor
from haim_tf.likelihoods import Likelihood
from haim_tf.networks.autoregressive import NETWORKS, AutoregressiveNetwork, crop_at

# Of the embeddings of grid elements and codes in a fresh network.
EMBEDDING_STDDEV = 0.4


@NETWORKS.register("pixel_cnn")
@keras.saving.register_keras_serializable(package="haim_tf")
class PixelCNN(AutoregressiveNetwork):
    """Autoregressive distribution over a grid of integers, given codes and/or a label where asked.

    Elements are predicted in raster order (and channels in order, inside the likelihood head). A masked
    first layer keeps a position from seeing itself; gated blocks and, where asked, causal attention
    follow; position-wise layers end in the parameters of the likelihood head. What the codes say enters the
    gate of every block and, past the blocks, the head: without that short path a network learns to draw on
    its neighbours long before it learns to heed the codes.

    Args:
        likelihood: the head: `Categorical(K)` for grids `(B, H, W)` of codes (or single-channel pixels),
            `DiscretizedLogisticMixture(C)` for pixels `(B, H, W, C)`, or another `Likelihood`.
        width: channels of the blocks.
        blocks: number of gated residual blocks.
        kernel_size: of the blocks' masked convolutions; the first layer's is one row and two columns larger.
        attention: after which blocks (0-based) a causal attention follows, e.g. `[1, 3]`.
        heads: heads of each attention; a head's width is `width // heads`.
        dropout: rate inside the gated blocks.
        condition_width, condition_blocks: size of the residual network that reads the codes.
        condition_overlap: whether what it says of neighbouring codes overlaps on the finer grid (a transposed
            convolution of kernel 2 p and stride p, p = `upsampling`), or each code speaks for its own cell
            alone (kernel p).
        remat: whether training computes the inside of each block twice instead of keeping it in memory
            (without dropout only).
        **kwargs: what the network is conditioned on, see `AutoregressiveNetwork`.

    Raises:
        ValueError: an argument that is not as stated; codes or labels missing, or not wanted.

    Example:
        >>> prior = PixelCNN(Categorical(64), width=16, blocks=2, num_classes=10)
        >>> codes, labels = np.zeros((1, 7, 7), "int32"), np.array([3])
        >>> tuple(prior.log_prob(codes, labels=labels).shape)  # Nats per position.
        (1, 7, 7)

    Reference: De Fauw, Dieleman, Simonyan 2019, section 3 (main decoders and priors); van den Oord et al.
    2016 (gated PixelCNN); Chen et al. 2018 (attention).
    """

    def __init__(
        self,
        likelihood: Likelihood,
        width: int,
        blocks: int,
        kernel_size: tuple[int, int] = (3, 5),
        attention: Sequence[int] = (),
        heads: int = 4,
        dropout: float = 0.0,
        *,
        condition_width: int = 64,
        condition_blocks: int = 2,
        condition_overlap: bool = False,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(likelihood, **kwargs)
        require_positive_integers(width=width, blocks=blocks, heads=heads)
        if width % heads:
            raise ValueError(f"width must be divisible by heads, got width={width}, heads={heads}")
        if not set(attention) <= set(range(blocks)) or len(set(attention)) < len(attention):
            raise ValueError(f"attention must name blocks 0..{blocks - 1}, each once, got {list(attention)}")
        if remat and dropout:
            raise ValueError(f"dropout must be 0 with remat, which would draw another mask, got {dropout}")
        self.width = int(width)
        self.blocks = int(blocks)
        self.kernel_size = tuple(kernel_size)
        self.attention = tuple(attention)
        self.keeps_all_rows, self.learns_on_crops = bool(attention), not attention
        self.heads = int(heads)
        self.dropout = dropout
        self.condition_width = condition_width
        self.condition_blocks = condition_blocks
        self.condition_overlap = condition_overlap
        self.remat = remat
        if not isinstance(likelihood, Likelihood):
            raise ValueError(f"likelihood must be a haim_tf.likelihoods.Likelihood, got {likelihood!r}")

        policy = self.dtype_policy
        first_kernel = (self.kernel_size[0] + 1, self.kernel_size[1] + 2)
        self.embed = None
        if likelihood.embedded:
            self.embed = _embedding(likelihood.num_values, width, policy, "embed")
        # Attention sees all earlier inputs only if each position's hidden state holds the input just before.
        self.first = MaskedConv2D(
            width,
            first_kernel,
            include_center=False,
            wrap=bool(self.attention),
            dtype=policy,
            name="first",
        )
        self.block_layers = [
            GatedResidualBlock(
                width,
                self.kernel_size,
                condition_width=condition_width if self.codebook_size else None,
                vector_width=width if self.num_classes else None,
                dropout=dropout,
                dtype=policy,
                name=f"block_{i}",
            )
            for i in range(blocks)
        ]
        self.attention_layers = [
            CausalAttention2D(heads, width // heads, dtype=policy, name=f"attention_{i}")
            for i in self.attention
        ]
        self.hidden = keras.layers.Dense(width, activation="swish", dtype=policy, name="hidden")
        # The last layer is float32 and starts near zero: the head's initial bias is then what is predicted
        # at first (exactly zero would hide every gradient of a fresh network).
        self.last = keras.layers.Dense(
            likelihood.params_size,
            kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3),
            bias_initializer=_FixedBias(likelihood.initial_bias()),
            dtype="float32",
            name="last",
        )
        if self.codebook_size:
            if self.code_dim:
                self.embed_codes = keras.layers.Dense(condition_width, dtype=policy, name="embed_codes")
            else:
                self.embed_codes = _embedding(self.codebook_size, condition_width, policy, "embed_codes")
            self.read_codes = ResidualStack(
                condition_width, condition_blocks, dtype=policy, name="read_codes"
            )
            self.upsample = keras.layers.Conv2DTranspose(
                condition_width,
                (1 + condition_overlap) * self.upsampling,
                self.upsampling,
                padding="same",
                activation="swish",
                dtype=policy,
                name="upsample",
            )
            self.condition_skip = keras.layers.Dense(
                width, use_bias=False, dtype=policy, name="condition_skip"
            )
        if self.num_classes:
            rows = self.num_classes + bool(self.label_dropout)
            self.embed_label = keras.layers.Embedding(rows, width, dtype=policy, name="embed_label")

    def build(
        self,
        x_shape: Shape | None = None,
        codes_shape: Shape | None = None,
        labels_shape: Shape | None = None,
    ) -> None:
        """Creates every variable; no shape is needed, for all sizes follow from the constructor."""
        if self.embed:
            self.embed.build((None, None, None))
        inside = (None, None, None, self.width)
        self.first.build(inside if self.embed else (None, None, None, *self.likelihood.element_shape))
        for layer in (*self.block_layers, *self.attention_layers):
            layer.build(inside)
        self.hidden.build(inside)
        self.last.build(inside)
        if self.codebook_size:
            self.embed_codes.build((None, None, None, *([self.code_dim] if self.code_dim else [])))
            self.read_codes.build((None, None, None, self.condition_width))
            self.upsample.build((None, None, None, self.condition_width))
            self.condition_skip.build((None, None, None, self.condition_width))
        if self.num_classes:
            self.embed_label.build((None,))

    def embed_by_codebook(self, elements: np.ndarray | None = None, codes: np.ndarray | None = None) -> None:
        """Starts embeddings from code vectors, so that codes that mean alike are embedded alike.

        A fresh network learns faster so. Each table becomes a fixed random projection of the standardised
        code vectors, with the spread of a fresh table.

        Args:
            elements: code vectors of the grid's own elements, float `(K, D)`, where they are codes.
            codes: code vectors of the codes that the network is conditioned on, float `(K, D)`.

        Raises:
            ValueError: not a vector for each value of the grid, or for each code.

        NOTE: this project's own, not the paper's.
        """
        for vectors, layer in ((elements, self.embed), (codes, getattr(self, "embed_codes", None))):
            if vectors is None:
                continue
            table = layer.embeddings
            vectors = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
            projection = np.random.default_rng(0).normal(size=(vectors.shape[1], table.shape[1]))
            table.assign(EMBEDDING_STDDEV * vectors @ projection / np.sqrt(vectors.shape[1]))

    def label_layers(self) -> list[keras.Layer]:
        if not self.num_classes:
            return []
        return [self.embed_label, *(block.from_vector for block in self.block_layers)]

    def _embed_elements(self, x):
        """Grid elements as inputs of the first layer: their embeddings, or the head's own floats."""
        return self.embed(x) if self.embed else ops.cast(self.likelihood.scale(x), self.compute_dtype)

    def _conditioning(self, codes, labels, training=False):
        """The map `(B, H, W, E)` and the vector `(B, V)` that condition the blocks (`None` where unused)."""
        if (codes is None) != (self.codebook_size is None):
            raise ValueError(f"codes must {'' if self.codebook_size else 'not '}be given to this PixelCNN")
        if (labels is None) != (self.num_classes is None):
            raise ValueError(f"labels must {'' if self.num_classes else 'not '}be given to this PixelCNN")
        condition = vector = None
        if codes is not None:
            condition = self.upsample(self.read_codes(self.embed_codes(codes)))
        if labels is not None:
            vector = self.embed_label(self.drop_labels(labels) if training else labels)
        return condition, vector

    def call(
        self,
        x: Tensor,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool = False,
        corner: Tensor | None = None,
    ) -> Tensor:
        condition, vector = self._conditioning(codes, labels, training)
        if corner is not None and condition is not None:
            condition = crop_at(condition, corner, x.shape[1:3])
        hidden = self.first(self._embed_elements(x))
        attention = iter(self.attention_layers)
        for i, block in enumerate(self.block_layers):
            if self.remat and training:
                hidden = _rematerialized(block, hidden, condition=condition, vector=vector)
            else:
                hidden = block(hidden, condition=condition, vector=vector, training=training)
            if i in self.attention:
                hidden = hidden + next(attention)(hidden)
        if condition is not None:
            hidden = hidden + self.condition_skip(condition)
        outputs = self.last(self.hidden(ops.swish(hidden)))
        return self.likelihood.parameters(outputs, x)

    def init_cache(
        self,
        batch_size: int,
        height: int,
        width: int,
        codes: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Cache:
        condition, vector = self._conditioning(codes, labels)
        cache = {
            "first": self.first.init_cache(batch_size, width),
            "blocks": [block.init_cache(batch_size, width) for block in self.block_layers],
            "attention": [a.init_cache(batch_size, height, width) for a in self.attention_layers],
            "likelihood": self.likelihood.init_cache(batch_size, width),
        }
        if condition is not None:
            cache["condition"] = condition
            cache["skip"] = ops.zeros((batch_size, width, self.width), self.compute_dtype)
        if vector is not None:
            cache["vector"] = vector
        return cache

    def resize_cache(self, cache: Cache, rows: int) -> Cache:
        count = rows * self.first.grid_width(cache["first"])
        attention = [
            layer.resize_cache(c, count)
            for layer, c in zip(self.attention_layers, cache["attention"], strict=True)
        ]
        return {**cache, "attention": attention}

    def start_row(self, cache: Cache, row: Tensor | int) -> Cache:
        condition, vector = cache.get("condition"), cache.get("vector")
        if condition is not None:
            batch_size, _, width, channels = condition.shape
            condition = ops.slice(condition, (0, row, 0, 0), (batch_size, 1, width, channels))[:, 0]
        cache = {
            **cache,
            "first": self.first.start_row(cache["first"]),
            "blocks": [
                block.start_row(c, condition, vector)
                for block, c in zip(self.block_layers, cache["blocks"], strict=True)
            ],
            "likelihood": self.likelihood.start_row(cache["likelihood"]),
        }
        if condition is not None:
            cache["skip"] = self.condition_skip(condition)
        return cache

    def read(self, cache: Cache, row: Tensor | int, column: Tensor | int) -> tuple[Tensor, Cache]:
        width = self.first.grid_width(cache["first"])
        hidden = self.first.read(cache["first"], column)
        blocks, attentions = [], []
        for i, (block, block_cache) in enumerate(zip(self.block_layers, cache["blocks"], strict=True)):
            hidden, block_cache = block.step(block_cache, hidden, column)
            blocks.append(block_cache)
            if i in self.attention:
                j = len(attentions)
                update, attention_cache = self.attention_layers[j].step(
                    cache["attention"][j], hidden, row * width + column
                )
                hidden = hidden + update
                attentions.append(attention_cache)
        if "skip" in cache:
            skip = ops.slice(cache["skip"], (0, column, 0), (hidden.shape[0], 1, self.width))
            hidden = hidden + skip[:, 0]
        outputs = self.last(self.hidden(ops.swish(hidden)))
        params = self.likelihood.parameters_at(cache["likelihood"], outputs, column)
        return params, {**cache, "blocks": blocks, "attention": attentions}

    def write(self, cache: Cache, x: Tensor, column: Tensor | int) -> Cache:
        return {
            **cache,
            "first": self.first.write(cache["first"], self._embed_elements(x), column),
            "likelihood": self.likelihood.write(cache["likelihood"], x, column),
        }

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "width": self.width,
            "blocks": self.blocks,
            "kernel_size": list(self.kernel_size),
            "attention": list(self.attention),
            "heads": self.heads,
            "dropout": self.dropout,
            "condition_width": self.condition_width,
            "condition_blocks": self.condition_blocks,
            "condition_overlap": self.condition_overlap,
            "remat": self.remat,
        }


def _embedding(count, width, policy, name):
    """An embedding of integers that starts as strong as what is added to it; Keras' own is far less."""
    initializer = keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV)
    return keras.layers.Embedding(count, width, initializer, dtype=policy, name=name)


def _rematerialized(block, inputs, **conditioning):
    """The block's output in training; its inside is not kept but computed again for the backward pass."""
    given = {name: value for name, value in conditioning.items() if value is not None}

    def run(inputs, *values):
        return block(inputs, **dict(zip(given, values, strict=True)), training=True)

    # Tensors pass as arguments: of what a function just closes over, gradients would be lost.
    return keras.remat(run)(inputs, *given.values())


class _FixedBias(keras.initializers.Initializer):
    """Bias initializer that gives the likelihood head's own starting values."""

    def __init__(self, values):
        self.values = np.asarray(values, "float32")

    def __call__(self, shape, dtype=None):
        return ops.convert_to_tensor(self.values, dtype)
