"""PixelCNN: the autoregressive network behind main decoders (codes -> lower grid) and priors (top codes)."""

import keras
import numpy as np
from keras import ops

from haim_tf.checks import require_positive_integers
from haim_tf.layers.causal_attention import CausalAttention2D
from haim_tf.layers.gated_block import GatedResidualBlock
from haim_tf.layers.masked_conv import MaskedConv2D
from haim_tf.layers.residual import ResidualStack
from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture

# Of the embeddings of grid elements and codes in a fresh network.
EMBEDDING_STDDEV = 0.4


@keras.saving.register_keras_serializable(package="haim_tf")
class PixelCNN(keras.layers.Layer):
    """Autoregressive distribution over a grid of integers, given codes and/or a label where asked.

    Elements are predicted in raster order (and channels in order, inside the likelihood head). A masked
    first layer keeps a position from seeing itself; gated blocks and, where asked, causal attention
    follow; position-wise layers end in the parameters of the likelihood head. What the codes say enters the
    gate of every block and, past the blocks, the head: without that short path a network learns to draw on
    its neighbours long before it learns to heed the codes.

    It runs in two ways that agree: `call` on whole grids, for training and likelihoods, and step by step
    with explicit caches (`init_cache`, then `start_row` a row, `read` and `write` a position), for sampling.

    Args:
        likelihood: `Categorical(K)` for grids `(B, H, W)` of codes (or single-channel pixels), or
            `DiscretizedLogisticMixture(C)` for pixels `(B, H, W, C)`.
        width: channels of the blocks.
        blocks: number of gated residual blocks.
        kernel_size: of the blocks' masked convolutions; the first layer's is two rows and columns larger.
        attention: after which blocks (0-based) a causal attention follows, e.g. `[1, 3]`.
        heads: heads of each attention; a head's width is `width // heads`.
        dropout: rate inside the gated blocks.
        codebook_size: `K` of the codes that the network is conditioned on, or `None`.
        upsampling: how many times finer the grid is than those codes, per axis.
        condition_width, condition_blocks: size of the residual network that reads the codes.
        condition_overlap: whether what it says of neighbouring codes overlaps on the finer grid (a transposed
            convolution of kernel 2 p and stride p, p = `upsampling`), or each code speaks for its own cell
            alone (kernel p).
        num_classes: number of labels that the network is conditioned on, or `None`.
        label_dropout: share of the training examples whose label is replaced by "no label", the index
            `num_classes`: what guidance needs (Ho and Salimans 2022, section 3). 0: never, and there is no
            such index.
        code_dim: `D`: the codes come as their vectors, float `(B, h, w, D)`, so that gradient passes to
            them; or `None`, the rule: as integers.
        remat: whether training computes the inside of each block twice instead of
            keeping it in memory (without dropout only).

    Attributes:
        no_label: the label that stands for none, an int, or `None` where the network has no such label.

    Shapes: x int `(B, H, W)` or `(B, H, W, C)`; codes int `(B, H / upsampling, W / upsampling)`; labels int
    `(B,)`; output: the head's parameters, float32 `(B, H, W, P)`. Where x is a crop of its grid, codes may be
    those of the whole grid, with the crop's `corner`, int `(B, 2)`, row and column of x's first element.

    Example:
        >>> prior = PixelCNN(Categorical(64), width=16, blocks=2, num_classes=10)
        >>> codes, labels = np.zeros((1, 7, 7), "int32"), np.array([3])
        >>> prior.log_prob(codes, labels=labels).shape   # nats per position
        (1, 7, 7)

    Reference: De Fauw, Dieleman, Simonyan 2019, section 3 (main decoders and priors); van den Oord et al.
    2016 (gated PixelCNN); Chen et al. 2018 (attention).
    """

    def __init__(
        self,
        likelihood,
        width,
        blocks,
        kernel_size=(3, 5),
        attention=(),
        heads=4,
        dropout=0.0,
        codebook_size=None,
        upsampling=1,
        condition_width=64,
        condition_blocks=2,
        condition_overlap=False,
        num_classes=None,
        label_dropout=0.0,
        code_dim=None,
        remat=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        require_positive_integers(width=width, blocks=blocks, heads=heads, upsampling=upsampling)
        optional = {"codebook_size": codebook_size, "num_classes": num_classes, "code_dim": code_dim}
        for name, value in optional.items():
            if value is not None:
                require_positive_integers(**{name: value})
        if width % heads:
            raise ValueError(f"width must be divisible by heads, got width={width}, heads={heads}")
        if not set(attention) <= set(range(blocks)) or len(set(attention)) < len(attention):
            raise ValueError(f"attention names blocks 0..{blocks - 1}, each once, got {list(attention)}")
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout must be in [0, 1), got {label_dropout!r}")
        if label_dropout and not num_classes:
            raise ValueError(f"label_dropout is for networks with num_classes, got {label_dropout!r}")
        if remat and dropout:
            raise ValueError(f"remat would draw other masks the second time; use dropout=0, got {dropout}")
        self.likelihood = likelihood
        self.width = width
        self.blocks = blocks
        self.kernel_size = tuple(kernel_size)
        self.attention = tuple(attention)
        self.heads = heads
        self.dropout = dropout
        self.codebook_size = codebook_size
        self.upsampling = upsampling
        self.condition_width = condition_width
        self.condition_blocks = condition_blocks
        self.condition_overlap = condition_overlap
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.no_label = num_classes if label_dropout else None
        self.code_dim = code_dim
        self.remat = remat
        self.pixels = isinstance(likelihood, DiscretizedLogisticMixture)
        if not self.pixels and not isinstance(likelihood, Categorical):
            raise ValueError(
                f"likelihood must be Categorical or DiscretizedLogisticMixture, got {likelihood!r}"
            )

        policy = self.dtype_policy
        first_kernel = (self.kernel_size[0] + 1, self.kernel_size[1] + 2)
        self.embed = None
        if not self.pixels:
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
                condition_width=condition_width if codebook_size else None,
                vector_width=width if num_classes else None,
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
        if codebook_size:
            if code_dim:
                self.embed_codes = keras.layers.Dense(condition_width, dtype=policy, name="embed_codes")
            else:
                self.embed_codes = _embedding(codebook_size, condition_width, policy, "embed_codes")
            self.read_codes = ResidualStack(
                condition_width, condition_blocks, dtype=policy, name="read_codes"
            )
            self.upsample = keras.layers.Conv2DTranspose(
                condition_width,
                (1 + condition_overlap) * upsampling,
                upsampling,
                padding="same",
                activation="swish",
                dtype=policy,
                name="upsample",
            )
            self.condition_skip = keras.layers.Dense(
                width, use_bias=False, dtype=policy, name="condition_skip"
            )
        if num_classes:
            rows = num_classes + bool(label_dropout)
            self.embed_label = keras.layers.Embedding(rows, width, dtype=policy, name="embed_label")
        if label_dropout:
            self.seed_generator = keras.random.SeedGenerator()

    def build(self, x_shape=None, codes_shape=None, labels_shape=None):
        """Creates every variable; no shape is needed, for all sizes follow from the constructor."""
        if self.embed:
            self.embed.build((None, None, None))
        inside = (None, None, None, self.width)
        self.first.build((None, None, None, self.likelihood.channels if self.pixels else self.width))
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

    def embed_by_codebook(self, elements=None, codes=None):
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

    def _embed_elements(self, x):
        """Grid elements as inputs of the first layer: code embeddings, or pixels in -1..1."""
        if self.pixels:
            return ops.cast(self.likelihood.scale(x), self.compute_dtype)
        return self.embed(x)

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
            if training and self.label_dropout:
                dropped = keras.random.uniform(ops.shape(labels), seed=self.seed_generator)
                labels = ops.where(dropped < self.label_dropout, self.no_label, labels)
            vector = self.embed_label(labels)
        return condition, vector

    def call(self, x, codes=None, labels=None, corner=None, training=False):
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

    def log_prob(self, x, codes=None, labels=None, corner=None, training=False):
        """Log-probability of every grid element given the ones before it, nats, float32 `(B, H, W)`."""
        params = self(x, codes=codes, labels=labels, corner=corner, training=training)
        return self.likelihood.log_prob(params, x)

    def init_cache(self, batch_size, height, width, codes=None, labels=None):
        """Cache of a fresh grid: nothing sampled, conditioning computed once."""
        condition, vector = self._conditioning(codes, labels)
        cache = {
            "first": self.first.init_cache(batch_size, width),
            "blocks": [block.init_cache(batch_size, width) for block in self.block_layers],
            "attention": [a.init_cache(batch_size, height, width) for a in self.attention_layers],
        }
        if self.pixels:
            # The head's linear prediction looks at the last row and at the current one, in float32.
            empty = ops.zeros((batch_size, width + 1, self.likelihood.channels), "float32")
            cache["pixels"] = {"above": empty, "row": empty}
        if condition is not None:
            cache["condition"] = condition
            cache["skip"] = ops.zeros((batch_size, width, self.width), self.compute_dtype)
        if vector is not None:
            cache["vector"] = vector
        return cache

    def resize_cache(self, cache, rows):
        """The cache with room for `rows` rows (an int) where attention keeps all of them."""
        count = rows * cache["first"]["above"].shape[1]
        attention = [
            layer.resize_cache(c, count)
            for layer, c in zip(self.attention_layers, cache["attention"], strict=True)
        ]
        return {**cache, "attention": attention}

    def start_row(self, cache, row):
        """What the finished rows and the conditioning contribute to row `row`, for all layers at once."""
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
        }
        if condition is not None:
            cache["skip"] = self.condition_skip(condition)
        if self.pixels:
            finished = cache["pixels"]["row"]
            cache["pixels"] = {"above": finished, "row": ops.zeros_like(finished)}
        return cache

    def read(self, cache, row, column):
        """Parameters `(B, P)` of the element at (row, column), and the new cache."""
        width = cache["first"]["above"].shape[1]
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
        params = self.likelihood.parameters_from_neighbors(outputs, *self._neighbors(cache, column))
        return params, {**cache, "blocks": blocks, "attention": attentions}

    def write(self, cache, x, column):
        """Stores the element `(B,)` or `(B, C)` just decided at `column` of the current row."""
        cache = {**cache, "first": self.first.write(cache["first"], self._embed_elements(x), column)}
        if self.pixels:
            pixels = self.likelihood.scale(x)[:, None]
            row = ops.slice_update(cache["pixels"]["row"], (0, column + 1, 0), pixels)
            cache["pixels"] = {**cache["pixels"], "row": row}
        return cache

    def _neighbors(self, cache, column):
        """West, north and north-west of a position, float32 `(B, C)` in -1..1, 0 outside the image."""
        if not self.pixels:
            return None, None, None
        above, row = cache["pixels"]["above"], cache["pixels"]["row"]
        size = (row.shape[0], 1, row.shape[2])
        west = ops.slice(row, (0, column, 0), size)[:, 0]
        north = ops.slice(above, (0, column + 1, 0), size)[:, 0]
        return west, north, ops.slice(above, (0, column, 0), size)[:, 0]

    def compute_output_shape(self, x_shape, codes_shape=None, labels_shape=None):
        return (*x_shape[:3], self.likelihood.params_size + (self.likelihood.channels if self.pixels else 0))

    def get_config(self):
        return {
            **super().get_config(),
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "width": self.width,
            "blocks": self.blocks,
            "kernel_size": list(self.kernel_size),
            "attention": list(self.attention),
            "heads": self.heads,
            "dropout": self.dropout,
            "codebook_size": self.codebook_size,
            "upsampling": self.upsampling,
            "condition_width": self.condition_width,
            "condition_blocks": self.condition_blocks,
            "condition_overlap": self.condition_overlap,
            "num_classes": self.num_classes,
            "label_dropout": self.label_dropout,
            "code_dim": self.code_dim,
            "remat": self.remat,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["likelihood"] = keras.saving.deserialize_keras_object(config["likelihood"])
        return cls(**config)


def crop_at(grid, corner, size):
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
