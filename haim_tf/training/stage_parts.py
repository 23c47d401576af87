"""What a stage of a recipe trains: the parts of a model, and whether codes are among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel
    from haim_tf.training.recipe import Recipe


def trained_parts(model: HierarchicalModel, stage: dict[str, Any]) -> set[str]:
    """The names of the parts that a stage trains: those that it names and that can learn."""
    return model.parts_named(stage["train"] or model.parts) & model.parts_that_learn


def trains_codes(model: HierarchicalModel, stage: dict[str, Any]) -> bool:
    """Whether a stage trains encoders and codebooks, of any level."""
    return bool(trained_parts(model, stage) & model.parts_named(["codes"]))


def codes_are_final(model: HierarchicalModel, recipe: Recipe, number: int) -> bool:
    """Whether a stage is the last one that trains codes."""
    training = [trains_codes(model, stage) for stage in recipe["stages"]]
    return training[number] and not any(training[number + 1 :])


def fresh_networks(model: HierarchicalModel, recipe: Recipe, number: int) -> set[str]:
    """The parts that a stage is the first to train, where it leaves the codes as earlier stages made them."""
    stages = recipe["stages"]
    trained = trained_parts(model, stages[number])
    earlier = [trained_parts(model, stage) for stage in stages[:number]]
    codes = model.parts_named(["codes"]) & model.parts_that_learn
    if trained & codes or not codes <= set().union(*earlier):
        return set()
    return trained.difference(*earlier)
