"""Copies of a hierarchy with a part less or more, which say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haim_tf.models import inputs

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel


class Copies:
    """Mixin that gives `HierarchicalModel` its `without_teachers` and `with_labels`."""

    def without_teachers(self) -> HierarchicalModel:
        """A copy that lacks the teachers of masked self-prediction: smaller, alike in everything but training
        the codes of their levels, which are frozen.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.without_teachers().count_params() == model.count_params()  # It has none.
            True
        """
        config = self.get_config()
        levels = [dict(level) for level in config["levels"]]
        for level, autoencoder in zip(levels, self.autoencoders, strict=True):
            if autoencoder.teacher:
                level["auxiliary"] = {**level["auxiliary"], "teacher": False}
        frozen = [name for name in config["frozen"] if not name.startswith("teacher")]
        model = type(self).from_config({**config, "levels": levels, "frozen": frozen})
        for name, part in model.parts.items():
            for ours, theirs in zip(part.weights, self.parts[name].weights, strict=True):
                ours.assign(theirs)
        model.weights_history = self.weights_history
        return model

    def with_labels(self, *levels: int, label_dropout: float = 0.1) -> HierarchicalModel:
        """A copy whose main decoders of these levels are told the label too: alike in everything until it is
        trained, since what labels add is zero at first.

        What tells classes apart and is finer than the top codes, the prior alone cannot draw. Decoders that
        have learned it sample it, guided where `label_dropout` is not 0; in return the label's posterior
        runs them once per label. They learn, even where they were frozen.

        Args:
            levels: 1 the finest; those whose decoders are told the label already stay as they are.
            label_dropout: share of the training examples whose label is left out, for guidance; 0: never,
                and the copy needs labels wherever these decoders run.

        Raises:
            ValueError: the model takes no labels; levels or a share that do not fit it; a decoder of a kind
                that knows no labels.

        Example:
            >>> model = haim_tf.load("debug").with_labels(2)
            >>> model.freeze("codes", "prior", "decoder_1")
            >>> model.compile()
            >>> images, labels = np.zeros((8, 16, 16, 3), "uint8"), np.arange(8)
            >>> history = model.fit(images, labels, verbose=0)
        """
        config = self.get_config()
        config["levels"] = [dict(level) for level in config["levels"]]
        for level in (inputs.check_level(level, self.num_levels) for level in levels):
            if not self.decoders[level - 1].num_classes:
                told = {"labels": True, "label_dropout": label_dropout}
                config["levels"][level - 1]["decoder"] = {**config["levels"][level - 1]["decoder"], **told}
                config["frozen"] = [name for name in config["frozen"] if name != f"decoder_{level}"]
        model = type(self).from_config(config)
        for name, part in model.parts.items():
            ours, theirs = part.weights, self.parts[name].weights
            if name.startswith("decoder") and part.num_classes and not self.parts[name].num_classes:
                layers = part.label_layers()
                if not layers:
                    raise ValueError(f"{name} must be of a kind that labels enter, got {type(part).__name__}")
                layers[0].weights[0].assign(layers[0].weights[0] * 0)
                fresh = {id(weight) for layer in layers for weight in layer.weights}
                ours = [weight for weight in ours if id(weight) not in fresh]
            for weight, value in zip(ours, theirs, strict=True):
                weight.assign(value)
        model.weights_history = self.weights_history
        return model
