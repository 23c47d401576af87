"""The parts of a hierarchy: what is trained, frozen or started apart from the rest, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import keras
from keras import ops

from haim_tf.backend import is_tensorflow


class Parts:
    """Mixin that names a hierarchy's parts, freezes them and starts them.

    A part is an autoencoder, the teacher of its auxiliary decoder where that has one, a main decoder or
    the prior: `autoencoder_1`, `teacher_1`, `decoder_1`, ..., `prior`.
    """

    @property
    def parts(self) -> dict[str, keras.Layer | _Layers]:
        """The separately trained parts by name."""
        parts = {}
        for i, (autoencoder, decoder) in enumerate(
            zip(self.autoencoders, self.decoders, strict=True), start=1
        ):
            parts[f"autoencoder_{i}"] = _Layers(autoencoder.layers_but_teacher)
            if autoencoder.teacher:
                parts[f"teacher_{i}"] = autoencoder.teacher
            parts[f"decoder_{i}"] = decoder
        return {**parts, "prior": self.prior}

    def parts_named(self, names: Iterable[str]) -> set[str]:
        """Part names of a mix of part names and groups: "codes" (teachers and all), "teachers", "decoders",
        "prior", "level_1", ...

        Raises:
            ValueError: a name that is no part's and no group's.

        Example:
            >>> sorted(haim_tf.load("debug").parts_named(["codes", "prior"]))
            ['autoencoder_1', 'autoencoder_2', 'prior']
        """
        groups = {name: [name] for name in self.parts}
        for i in range(1, self.num_levels + 1):
            groups[f"level_{i}"] = [name for name in self.parts if name.endswith(f"_{i}")]
        groups["codes"] = [name for name in self.parts if name.startswith(("autoencoder", "teacher"))]
        groups["teachers"] = [name for name in self.parts if name.startswith("teacher")]
        groups["decoders"] = [name for name in self.parts if name.startswith("decoder")]
        for name in names:
            if name not in groups:
                raise ValueError(f"unknown part {name!r}; the parts of this model are {sorted(groups)}")
        return {part for name in names for part in groups[name]}

    def freeze(self, *names: str) -> None:
        """Keeps parts from being trained: "codes" (all autoencoders), "teachers", "decoders", "prior",
        "level_1", ...

        Frozen parts' losses are not computed in training. Where the model was compiled, training goes on
        with a fresh optimizer state.

        Raises:
            ValueError: a name that is no part's and no group's.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.freeze("codes", "prior")
            >>> [name for name, part in model.parts.items() if part.trainable]
            ['decoder_1', 'decoder_2']
        """
        self._set_trainable(self.parts_named(names), False)

    def unfreeze(self, *names: str) -> None:
        """Trains parts again: the named ones, or all (but for autoencoders that have lost their teachers).

        Raises:
            ValueError: a name that is no part's and no group's.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.freeze("codes", "decoders", "prior")
            >>> model.unfreeze("prior")
            >>> [name for name, part in model.parts.items() if part.trainable]
            ['prior']
        """
        self._set_trainable(self.parts_named(names) if names else self.parts_that_learn, True)

    @property
    def parts_that_learn(self) -> set[str]:
        """Names of all parts but autoencoders that have lost their teachers, which cannot be trained.

        Example:
            >>> sorted(haim_tf.load("debug").parts_that_learn)
            ['autoencoder_1', 'autoencoder_2', 'decoder_1', 'decoder_2', 'prior']
        """
        lost = {f"autoencoder_{i}" for i, a in enumerate(self.autoencoders, start=1) if not a.trains}
        return set(self.parts) - lost

    def embed_by_codebooks(self, *names: str) -> None:
        """Starts how fresh networks embed codes from the code vectors of trained codebooks.

        Best done once, when the codes are trained and before the networks are: they learn faster so,
        for codes that mean alike are embedded alike. What such a network had learned is lost.

        Args:
            *names: of networks: "decoders", "prior", "decoder_1", ...; other parts have nothing to start.

        Raises:
            ValueError: a name that is no part's.

        Example:
            >>> haim_tf.load("debug").embed_by_codebooks("decoders", "prior")
        """
        named = self.parts_named(names)
        codebooks = [ops.convert_to_numpy(a.quantizer.codebook) for a in self.autoencoders]
        for i, decoder in enumerate(self.decoders):
            if f"decoder_{i + 1}" in named:
                read = None if self.autoencoders[i].end_to_end else codebooks[i]
                decoder.embed_by_codebook(elements=codebooks[i - 1] if i else None, codes=read)
        if "prior" in named and codebooks:
            self.prior.embed_by_codebook(elements=codebooks[-1])

    def left_behind(self, trained: Iterable[str]) -> Iterator[str]:
        """A sentence for each level whose codes are trained while networks that were made for them are not.

        Args:
            trained: names of the parts that are trained.

        Example:
            >>> model = haim_tf.load("debug")
            >>> list(model.left_behind(["autoencoder_2", "decoder_2"]))
            ['the codes of level 2 are trained, and prior, made for the codes as they were, stay frozen']
        """
        for level in range(1, self.num_levels + 1):
            above = f"decoder_{level + 1}" if level < self.num_levels else "prior"
            still = [name for name in (f"decoder_{level}", above) if name not in trained]
            if f"autoencoder_{level}" in trained and still:
                yield (
                    f"the codes of level {level} are trained, and {' and '.join(still)}, made for the codes "
                    "as they were, stay frozen"
                )

    def _set_trainable(self, names, trainable):
        scope = self.distribute_strategy.scope() if is_tensorflow() else contextlib.nullcontext()
        with scope:
            fresh = self._fresh_optimizer() if self.compiled else None  # First, for it may not be possible.
            self._set_flags(names, trainable)
            if fresh is not None:
                self.compile(fresh, **self._compile_arguments)

    def _set_flags(self, names, trainable):
        others = set(self.parts) - set(names)
        if trainable and not self.trainable:  # As `model.trainable = False` has it.
            self.trainable = True
            for name in others:
                self.parts[name].trainable = False
        for name in names:
            self.parts[name].trainable = trainable

    def _fresh_optimizer(self):
        try:
            return type(self.optimizer).from_config(self.optimizer.get_config())
        except Exception as error:  # Optimizers and schedules of one's own fail in many ways.
            raise ValueError(
                "the optimizer must be one that Keras can make anew from its configuration, for a compiled "
                f"model begins with a fresh one here ({' '.join(str(error).split())[:200]}): compile after "
                "freezing"
            ) from error


class _Layers:
    """Several layers as one part."""

    def __init__(self, layers):
        self.layers = layers

    @property
    def trainable(self):
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value):
        for layer in self.layers:
            layer.trainable = value

    @property
    def trainable_variables(self):
        return [v for layer in self.layers for v in layer.trainable_variables]

    @property
    def weights(self):
        return [w for layer in self.layers for w in layer.weights]

    def count_params(self):
        return sum(layer.count_params() for layer in self.layers)
