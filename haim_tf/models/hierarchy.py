"""The hierarchical model: images to codes, likelihoods and samples."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from haim_tf.checks import check_sampling, require_positive_integers
from haim_tf.class_names import Labels
from haim_tf.layers.types import Shape, Tensor
from haim_tf.likelihoods import PIXEL_LIKELIHOODS, Categorical
from haim_tf.models import inputs
from haim_tf.models.autoencoder import DiscreteAutoencoder
from haim_tf.models.generation import Generation
from haim_tf.models.train_step import PartwiseTraining
from haim_tf.networks import NETWORKS, AutoregressiveNetwork

if TYPE_CHECKING:
    from haim_tf.data.image_files import ImageShape


@keras.saving.register_keras_serializable(package="haim_tf")
class HierarchicalModel(PartwiseTraining, Generation, keras.Model):
    """A hierarchy of discrete autoencoders with autoregressive main decoders and a prior on top.

    With x_0 the image and x_l the codes of level l (1 the finest), the model bounds

        log p(x_0 | y) >= sum_l log p(x_{l-1} | x_l) + log p(x_L | y),

    since the codes are a deterministic function of the image. Autoencoders learn from their auxiliary
    decoders alone; main decoders and prior learn on the codes behind a stop-gradient.

    Args:
        image_shape: `(H, W, C)`, `C` 1 or 3.
        levels: a list of dicts, finest first; each holds `downsampling`, `codebook_size`, `code_dim`,
            `width`, `blocks` (see `DiscreteAutoencoder`) and `decoder`, a dict of its `kind` (a name of
            `networks.NETWORKS`; `"pixel_cnn"` where there is none) and arguments (`width`, `blocks`,
            `kernel_size`, `attention`, ...); and may hold `commitment`, `decay`, `revive_below` and
            `auxiliary`, which says what the codes are learned by. An empty list gives a flat, code-free
            autoregressive model of the pixels.
        prior: a dict like `decoder`.
        num_classes: number of labels y of a class-conditional model, or `None`.
        pixel_likelihood: `"logistic_mixture"`, `"categorical"` (256 values; `C` = 1 only), or a dict of the
            `kind`, a name of `likelihoods.PIXEL_LIKELIHOODS`, and its arguments.
        mixtures: components of the logistic mixture.

    Raises:
        ValueError: an image size that the levels' downsampling does not divide, missing or unknown keys.

    Example:
        >>> model = HierarchicalModel(
        ...     image_shape=(8, 8, 1),
        ...     levels=[dict(downsampling=2, codebook_size=16, code_dim=4, width=8, blocks=1,
        ...                  decoder=dict(width=8, blocks=1))],
        ...     prior=dict(width=8, blocks=1))
        >>> model.compile()
        >>> history = model.fit(np.zeros((32, 8, 8, 1), "uint8"), verbose=0)
        >>> model.sample(4).shape
        (4, 8, 8, 1)

    Reference: De Fauw, Dieleman, Simonyan, "Hierarchical autoregressive image models with auxiliary
    decoders", 2019, arXiv 1903.04933.
    """

    class_names = None  # The labels' names, a list, where a preset or the training data knows them.
    _sampling = None
    # The preset that the weights came from, if any: its `name`, `sha256`, `pretrained` and `dataset`.
    origin = None

    def __init__(
        self,
        image_shape: ImageShape,
        levels: Sequence[dict[str, Any]],
        prior: dict[str, Any],
        num_classes: int | None = None,
        pixel_likelihood: str | dict[str, Any] = "logistic_mixture",
        mixtures: int = 10,
        **kwargs: Any,
    ):
        inputs.check_settings()
        super().__init__(**kwargs)
        self._arguments = {
            "image_shape": list(image_shape),
            "levels": [dict(level) for level in levels],
            "prior": dict(prior),
            "num_classes": num_classes,
            "pixel_likelihood": pixel_likelihood,
            "mixtures": mixtures,
        }
        self.image_shape = tuple(image_shape)
        if len(self.image_shape) != 3 or self.image_shape[2] not in (1, 3):
            raise ValueError(f"image_shape must be (H, W, C) with C 1 or 3, got {self.image_shape}")
        require_positive_integers(height=self.image_shape[0], width=self.image_shape[1])
        if num_classes is not None:
            require_positive_integers(num_classes=num_classes)
        self.num_classes = num_classes
        self.num_levels = len(levels)
        policy = self.dtype_policy

        likelihood = self._pixel_likelihood(pixel_likelihood, mixtures)
        channels, lower = self.image_shape[2], None
        self.grid_shapes = [self.image_shape[:2]]
        self.codebook_sizes = []
        self.autoencoders, self.decoders = [], []
        for i, level in enumerate(self._arguments["levels"], start=1):
            level, decoder = _split_level(i, level)
            grid = self.grid_shapes[-1]
            factor = level["downsampling"]
            if grid[0] % factor or grid[1] % factor:
                raise ValueError(
                    f"level {i} downsamples by {factor}, which does not divide its {grid[0]}x{grid[1]} input "
                    f"(images of {self.image_shape})"
                )
            self.autoencoders.append(
                DiscreteAutoencoder(
                    **level,
                    channels=None if lower else channels,
                    lower_codebook_size=lower,
                    name=f"autoencoder_{i}",
                )
            )
            lower = level["codebook_size"]
            self.decoders.append(
                NETWORKS.make(
                    f"level {i}'s decoder",
                    decoder,
                    "pixel_cnn",
                    likelihood=likelihood,
                    codebook_size=lower,
                    upsampling=factor,
                    num_classes=None,
                    code_dim=level["code_dim"] if self.autoencoders[-1].end_to_end else None,
                    dtype=policy,
                    name=f"decoder_{i}",
                )
            )
            likelihood = Categorical(lower)
            self.codebook_sizes.append(lower)
            self.grid_shapes.append((grid[0] // factor, grid[1] // factor))
        self.prior = NETWORKS.make(
            "the prior",
            prior,
            "pixel_cnn",
            likelihood=likelihood,
            codebook_size=None,
            upsampling=1,
            num_classes=num_classes,
            code_dim=None,
            dtype=policy,
            name="prior",
        )
        self._prepare_training()
        self._programs = {}
        self.build()

    def _pixel_likelihood(self, configuration, mixtures):
        if isinstance(configuration, str):
            configuration = {"kind": configuration}
            if configuration["kind"] == "logistic_mixture":
                configuration["mixtures"] = mixtures
        return PIXEL_LIKELIHOODS.make("pixel_likelihood", configuration, channels=self.image_shape[2])

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates every variable; no input shape is needed."""
        if self.built:
            return
        for i, autoencoder in enumerate(self.autoencoders):
            autoencoder.build((None, *(self.image_shape if i == 0 else self.grid_shapes[i])))
        for network in (*self.decoders, self.prior):
            network.build()
        self.built = True

    @property
    def networks(self) -> list[AutoregressiveNetwork]:
        """The autoregressive networks: main decoders, finest first, then the prior."""
        return [*self.decoders, self.prior]

    # Tensor code, shared by training and use -------------------------------------------------------------

    def elements(self, images: Tensor) -> Tensor:
        """uint8 or float images as the grid x_0: int32 `(B, H, W, C)`, or `(B, H, W)` where the likelihood of
        the pixels takes single numbers."""
        images = ops.cast(ops.round(ops.cast(images, "float32")), "int32")
        return images if self.networks[0].likelihood.element_shape else images[..., 0]

    def autoencoder_input(self, grid: Tensor, level: int) -> Tensor:
        """What the autoencoder of `level` reads of its grid x_{l-1}: pixels in -1..1, or codes."""
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

    def _log_probs_below(self, grids):
        """Each main decoder's log-probability of its grid given the codes above it, a list of `(B,)`."""
        return [
            ops.sum(decoder.log_prob(lower, codes=self.decoder_condition(codes, level)), axis=(1, 2))
            for level, (decoder, lower, codes) in enumerate(
                zip(self.decoders, grids[:-1], grids[1:], strict=True), start=1
            )
        ]

    def _log_probs(self, images, labels):
        grids = [self.elements(images), *self._encode(images)]
        prior = ops.sum(self.prior.log_prob(grids[-1], labels=labels), axis=(1, 2))
        return ops.stack([*self._log_probs_below(grids), prior], axis=1)

    def _log_probs_given_codes(self, lower, codes, level):
        lower = self.elements(lower) if level == 1 else lower
        codes = self.decoder_condition(codes, level)
        return ops.sum(self.decoders[level - 1].log_prob(lower, codes=codes), axis=(1, 2))

    def _log_probs_of_top(self, grid, labels):
        grid = grid if self.num_levels else self.elements(grid)
        return ops.sum(self.prior.log_prob(grid, labels=labels), axis=(1, 2))

    def _auxiliary_losses(self, images):
        """What each autoencoder's loss is on a batch, float32 `(B, L)`, a row like the other."""
        grid, losses = self.elements(images), []
        for level, autoencoder in enumerate(self.autoencoders, start=1):
            outputs = autoencoder(self.autoencoder_input(grid, level))
            losses.append(outputs["loss"])
            grid = outputs["codes"]
        return ops.broadcast_to(ops.stack(losses)[None], (ops.shape(images)[0], self.num_levels))

    def _log_probs_by_label(self, images):
        """`(B, L)`, a level each, and the prior under every label, `(B, num_classes)`: nothing runs twice."""
        grids = [self.elements(images), *self._encode(images)]
        below = self._log_probs_below(grids)
        below = ops.stack(below, axis=1) if below else ops.zeros((ops.shape(images)[0], 0), "float32")
        return below, self._log_probs_of_top_by_label(grids[-1] if self.num_levels else images)

    def _log_probs_of_top_by_label(self, grid):
        """The prior under every label, `(B, num_classes)`: in a loop over some pairs of grid and label,
        so that neither program nor memory grows with the number of labels."""
        grid = grid if self.num_levels else self.elements(grid)
        count = ops.shape(grid)[0]  # An int, or a tensor in a graph for any number.
        pairs = count * self.num_classes
        size = min(pairs, PAIRS) if isinstance(pairs, int) else ops.minimum(pairs, PAIRS)

        def log_probs(chunk):
            # The last chunk is filled up with the last grid's pairs.
            chosen = ops.minimum(chunk * size + ops.arange(size, dtype="int32"), pairs - 1)
            labels = chosen % self.num_classes
            rows = ops.take(grid, chosen // self.num_classes, axis=0)
            return ops.sum(self.prior.log_prob(rows, labels=labels), axis=(1, 2))

        found = _one_by_one(log_probs, -(-pairs // size))
        return ops.reshape(ops.reshape(found, (-1,))[:pairs], (-1, self.num_classes))

    def decoder_condition(self, codes: Tensor, level: int) -> Tensor:
        """What the main decoder of `level` reads of the codes: themselves, or end to end their vectors."""
        autoencoder = self.autoencoders[level - 1]
        return autoencoder.quantizer.lookup(codes) if autoencoder.end_to_end else codes

    def has_auxiliary(self, level: int) -> bool:
        """Whether the codes of a level, and all below, have auxiliary decoders to reconstruct with."""
        return not any(autoencoder.end_to_end for autoencoder in self.autoencoders[:level])

    def _auxiliary(self, codes, level):
        for i in range(level, 0, -1):
            codes = self.autoencoders[i - 1].reconstruct(codes)
        return ops.cast(ops.round((codes + 1.0) * 127.5), "uint8")

    def _run(self, name, *arrays, batch_size=64):
        """Runs a method of tensors, compiled where the backend is TensorFlow, over batches of arrays."""
        if name not in self._programs:
            function = getattr(self, name)
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                function = tf.function(function, reduce_retracing=True, autograph=False)
            self._programs[name] = function
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
        """
        images = inputs.check_images(images, self.image_shape)
        return self._run("_encode", images) if self.num_levels else []

    @property
    def sampling_defaults(self) -> dict[str, Any]:
        """How the model samples when nothing else is asked: a dict of `temperature` and `top_p`, lists with
        one float a level (finest first) and one for the prior, and `guidance`, a float.

        May be set, also to a dict of some of these keys or to `None`: plain sampling, 1 everywhere.
        """
        return check_sampling(self._sampling, len(self.networks), self.takes_guidance)

    @sampling_defaults.setter
    def sampling_defaults(self, values: dict[str, Any] | None) -> None:
        check_sampling(values, len(self.networks), self.takes_guidance)
        self._sampling = values

    @property
    def takes_guidance(self) -> bool:
        """Whether `sample` takes a `guidance` other than 1: the prior is over codes and was trained with
        labels left out."""
        return self.prior.no_label is not None and self.prior.likelihood.takes_guidance

    def log_prob(self, images: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """Lower bound of the log-likelihood of images, float32 `(B,)`, in nats per image.

        Args:
            images: uint8, or float in 0..255, `(B, H, W, C)`.
            labels: ints `(B,)` in 0..num_classes-1 or names of classes, or one of them. Class-conditional
                models need them, but for those whose prior was trained with labels left out
                (`label_dropout`), where `None` gives the bound without a label.
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
        """
        bits = -self._log_probs_by_part(images, labels) / (math.prod(self.image_shape) * math.log(2.0))
        if not per_level:
            return bits.sum(axis=1)
        names = [f"level_{i + 1}" for i in range(self.num_levels)] + ["prior"]
        return {**dict(zip(names, bits.T, strict=True)), "total": bits.sum(axis=1)}

    def _log_probs_by_part(self, images, labels):
        images = inputs.check_images(images, self.image_shape)
        if labels is None and self.prior.no_label is not None:
            labels = np.full(len(images), self.prior.no_label, "int32")
        else:
            labels = inputs.check_labels(labels, self.num_classes, len(images), self.class_names)
        return self._run("_log_probs", images, labels)

    def without_teachers(self) -> HierarchicalModel:
        """A copy that lacks the teachers of masked self-prediction: smaller, alike in everything but training
        the codes of their levels, which are frozen."""
        levels = [dict(level) for level in self.get_config()["levels"]]
        for level, autoencoder in zip(levels, self.autoencoders, strict=True):
            if autoencoder.teacher:
                level["auxiliary"] = {**level["auxiliary"], "teacher": False}
        model = type(self).from_config({**self.get_config(), "levels": levels})
        for name, part in model.parts.items():
            for ours, theirs in zip(part.weights, self.parts[name].weights, strict=True):
                ours.assign(theirs)
        return model

    def save_to_preset(self, folder: str | os.PathLike, **options: Any) -> None:
        """Writes the model as a preset folder, which `haim_tf.load` reads; see `presets.save_to_preset`."""
        from haim_tf import presets  # Which find this class by its name.

        presets.save_to_preset(self, folder, **options)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, a dict that JSON can hold."""
        return copy.deepcopy(self._arguments)

    def get_config(self) -> dict:
        known = {"class_names": self.class_names, "sampling_defaults": self._sampling}
        known |= {"origin": self.origin, "fitted": self.fitted}
        return {**super().get_config(), **self._arguments, **known}

    @classmethod
    def from_config(cls, config: dict) -> HierarchicalModel:
        config = dict(config)
        names = ("class_names", "sampling_defaults", "origin", "fitted")
        known = {name: config.pop(name, None) for name in names}
        model = cls(**config)
        for name, value in known.items():
            if value is not None:
                setattr(model, name, value)
        return model


# Pairs of image and label that the prior sees at once where it is asked about every label.
PAIRS = 64


def _one_by_one(function, count):
    """`function(0)`, ..., `function(count - 1)`, float32 vectors of one size, stacked: the function is traced
    once and runs once at a time."""
    if keras.backend.backend() != "tensorflow":
        return ops.map(function, ops.arange(count))
    # `keras.ops.map` would trace it twice, and run up to ten at a time.
    import tensorflow as tf

    signature = tf.TensorSpec((None,), "float32")
    return tf.map_fn(function, tf.range(count), parallel_iterations=1, fn_output_signature=signature)


LEVEL_KEYS = ("downsampling", "codebook_size", "code_dim", "width", "blocks", "decoder")
OPTIONAL_LEVEL_KEYS = ("commitment", "decay", "revive_below", "auxiliary")


def _split_level(index, level):
    """A level's autoencoder arguments and its decoder's; a ValueError for keys missing or unknown."""
    missing = [key for key in LEVEL_KEYS if key not in level]
    unknown = [key for key in level if key not in (*LEVEL_KEYS, *OPTIONAL_LEVEL_KEYS)]
    if missing or unknown:
        raise ValueError(
            f"level {index} must have the keys {LEVEL_KEYS} and may have {OPTIONAL_LEVEL_KEYS}; "
            f"missing: {missing}, unknown: {unknown}"
        )
    require_positive_integers(downsampling=level["downsampling"])
    return {key: value for key, value in level.items() if key != "decoder"}, level["decoder"]
