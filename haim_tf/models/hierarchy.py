"""The hierarchical model: images to codes, likelihoods and samples."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from haim_tf.backend import unoptimized
from haim_tf.checks import check_sampling, require_int, require_positive_integers
from haim_tf.layers.types import Shape
from haim_tf.likelihoods import PIXEL_LIKELIHOODS, Categorical
from haim_tf.models import inputs
from haim_tf.models.autoencoder import DiscreteAutoencoder
from haim_tf.models.copies import Copies
from haim_tf.models.generation import Generation
from haim_tf.models.inference import Inference
from haim_tf.models.keras_files import HISTORY, KerasFiles
from haim_tf.models.train_step import PartwiseTraining
from haim_tf.networks import NETWORKS, AutoregressiveNetwork

if TYPE_CHECKING:
    from haim_tf.data.image_files import ImageShape


@keras.saving.register_keras_serializable(package="haim_tf")
class HierarchicalModel(PartwiseTraining, Inference, Generation, Copies, KerasFiles, keras.Model):
    """A hierarchy of discrete autoencoders with autoregressive main decoders and a prior on top.

    With x_0 the image and x_l the codes of level l (1 the finest), the model bounds

        log p(x_0 | y) >= sum_l log p(x_{l-1} | x_l) + log p(x_L | y),

    since the codes are a deterministic function of the image; with log p(x_{l-1} | x_l, y) where a main
    decoder is told the label. Autoencoders learn from their auxiliary decoders alone; main decoders and prior
    learn on the codes behind a stop-gradient.

    Args:
        image_shape: `(H, W, C)`, `C` 1 or 3.
        levels: a list of dicts, finest first; each holds `downsampling`, `codebook_size`, `code_dim`,
            `width`, `blocks` (see `DiscreteAutoencoder`) and `decoder`, a dict of its `kind` (a name of
            `networks.NETWORKS`; `"pixel_cnn"` where there is none) and arguments (`width`, `blocks`,
            `kernel_size`, `attention`, ...) and of `labels`, whether it is told the label as the prior is
            (by default not); and may hold `commitment`, `decay`, `revive_below` and `auxiliary`, which says
            what the codes are learned by. An empty list gives a flat, code-free autoregressive model of the
            pixels.
        prior: a dict like `decoder`.
        num_classes: number of labels y of a class-conditional model, or `None`.
        pixel_likelihood: `"logistic_mixture"`, `"categorical"` (256 values; `C` = 1 only), or a dict of the
            `kind`, a name of `likelihoods.PIXEL_LIKELIHOODS`, and its arguments.
        mixtures: components of the logistic mixture, where `pixel_likelihood` is its name.

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
        inputs.check_configuration(image_shape, levels, prior)
        super().__init__(**kwargs)
        inputs.check_policy(self.dtype_policy)
        self._arguments = _as_python(
            {
                "image_shape": list(image_shape),
                "levels": [dict(level) for level in levels],
                "prior": dict(prior),
                "num_classes": num_classes,
                "pixel_likelihood": pixel_likelihood,
                "mixtures": mixtures,
            }
        )
        prior, mixtures = self._arguments["prior"], self._arguments["mixtures"]
        self.image_shape = tuple(self._arguments["image_shape"])
        if len(self.image_shape) != 3 or self.image_shape[2] not in (1, 3):
            raise ValueError(f"image_shape must be (H, W, C) with C 1 or 3, got {self.image_shape}")
        for name, side in zip(("height", "width"), self.image_shape, strict=False):
            require_int(f"image_shape's {name}", side, low=1, high=inputs.MAX_SIDE)
        num_classes = require_int("num_classes", num_classes, low=1, optional=True)
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
                    num_classes=self._classes_of(f"level {i}'s decoder", decoder),
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
        self.build()
        self._program_store = types.SimpleNamespace(weights=len(self.weights), programs={})

    @property
    def _programs(self):
        """Compiled functions by name; made anew where layers have got weights since then, as LoRA gives."""
        count = len(self.weights)
        if self._program_store.weights != count:
            self._program_store = types.SimpleNamespace(weights=count, programs={})
        return self._program_store.programs

    def quantize(self, *arguments: Any, **options: Any) -> None:
        """Not for these models: an error.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a HierarchicalModel is not quantized by Keras: export it in bfloat16, or save it in float16"
        )

    def _classes_of(self, where, decoder):
        """How many labels a main decoder is told, or `None`; takes what says so out of its dict."""
        labels = decoder.pop("labels", False) if isinstance(decoder, Mapping) else False
        if not isinstance(labels, bool):
            raise ValueError(f"{where}: labels must be true or false, got {labels!r}")
        if labels and not self.num_classes:
            raise ValueError(f"{where}: labels must be false without num_classes, got {labels!r}")
        if not labels and isinstance(decoder, Mapping) and decoder.get("label_dropout"):
            raise ValueError(f"{where}: labels must be true with label_dropout, got {labels!r}")
        return self.num_classes if labels else None

    def _pixel_likelihood(self, configuration, mixtures):
        if isinstance(configuration, str):
            configuration = {"kind": configuration}
            if configuration["kind"] == "logistic_mixture":
                configuration["mixtures"] = mixtures
        made = PIXEL_LIKELIHOODS.make("pixel_likelihood", configuration, channels=self.image_shape[2])
        if made.num_values != 256:
            raise ValueError(f"pixel_likelihood must be of the 256 values of pixels, got {made.num_values}")
        return made

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates every variable; no input shape is needed."""
        if self.built:
            return
        with unoptimized():
            for i, autoencoder in enumerate(self.autoencoders):
                autoencoder.build((None, *(self.image_shape if i == 0 else self.grid_shapes[i])))
            for network in (*self.decoders, self.prior):
                network.build()
        self.built = True

    @property
    def networks(self) -> list[AutoregressiveNetwork]:
        """The autoregressive networks: main decoders, finest first, then the prior."""
        return [*self.decoders, self.prior]

    @property
    def sampling_defaults(self) -> dict[str, Any]:
        """How the model samples when nothing else is asked: a dict of `temperature` and `top_p`, lists with
        one float per level (finest first) and one for the prior, and `guidance`, a float.

        May be set, also to a dict of some of these keys or to `None`: plain sampling, 1 everywhere.
        """
        return check_sampling(self._sampling, len(self.networks), self.takes_guidance)

    @sampling_defaults.setter
    def sampling_defaults(self, values: dict[str, Any] | None) -> None:
        checked = check_sampling(values, len(self.networks), self.takes_guidance)
        # Values of NumPy's, which no file takes, are Python's there.
        self._sampling = None if values is None else {name: checked[name] for name in values}

    @property
    def takes_guidance(self) -> bool:
        """Whether `sample` takes a `guidance` other than 1: the prior, or a main decoder that is told the
        label, is over codes and was trained with labels left out."""
        return any(network.takes_guidance for network in self.networks)

    def decodes_by_label(self, level: int | None = None) -> bool:
        """Whether a main decoder of this level or below (of any where `None`) is told the label.

        Example:
            >>> haim_tf.load("plant_village128").decodes_by_label(level=1)
            False
        """
        return any(decoder.num_classes for decoder in self.decoders[:level])

    def no_label(self, networks: Sequence[AutoregressiveNetwork]) -> int | None:
        """The label that stands for none, or `None` where one of these networks has no such label, or none is
        told labels.

        Example:
            >>> model = haim_tf.load("fashion_mnist28")
            >>> model.no_label([model.prior])
            10
        """
        told = [network.no_label for network in networks if network.num_classes]
        return self.num_classes if told and None not in told else None

    @classmethod
    def from_preset(cls, name_or_folder: str | os.PathLike, **options: Any) -> HierarchicalModel:
        """`haim_tf.load` by the name that users of keras-hub know; arguments and errors are the same.

        Example:
            >>> HierarchicalModel.from_preset("debug").image_shape
            (16, 16, 3)
        """
        from haim_tf import presets  # Which find this class by its name.

        return presets.load(name_or_folder, **options)

    def save_to_preset(self, folder: str | os.PathLike, **options: Any) -> None:
        """Writes the model as a preset folder, which `haim_tf.load` reads; see `presets.save_to_preset`.

        Raises:
            ValueError, FileNotFoundError: as `presets.save_to_preset`.

        Example:
            >>> haim_tf.load("debug").save_to_preset("my_model")
            >>> haim_tf.load("my_model").image_shape
            (16, 16, 3)
        """
        from haim_tf import presets  # Which find this class by its name.

        presets.save_to_preset(self, folder, **options)

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, a dict that JSON can hold."""
        # No deep copy: Keras tracks what is in attributes, and the whole model would be copied along.
        return _as_python(self._arguments)

    def get_config(self) -> dict:
        known = {"class_names": self.class_names, "sampling_defaults": self._sampling}
        known["frozen"] = [name for name, part in self.parts.items() if not part.trainable]
        return {**super().get_config(), **self.arguments, **known}

    @classmethod
    def from_config(cls, config: dict) -> HierarchicalModel:
        config = dict(config)
        frozen = config.pop("frozen", ())
        known = {name: config.pop(name, None) for name in ("class_names", "sampling_defaults", *HISTORY)}
        model = cls(**config)
        model.freeze(*frozen)
        for name, value in known.items():
            if value is not None:
                setattr(model, name, value)
        return model


LEVEL_KEYS = ("downsampling", "codebook_size", "code_dim", "width", "blocks", "decoder")
OPTIONAL_LEVEL_KEYS = ("commitment", "decay", "revive_below", "auxiliary")


def _as_python(value):
    """Arguments with NumPy's numbers, which JSON cannot hold, as Python's."""
    if isinstance(value, dict):
        return {key: _as_python(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_python(item) for item in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


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
    decoder = level["decoder"]
    decoder = dict(decoder) if isinstance(decoder, Mapping) else decoder
    return {key: value for key, value in level.items() if key != "decoder"}, decoder
