"""One stage of a recipe, from its first step or from where an earlier run stopped to its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from haim_tf import data as haim_data
from haim_tf import progress
from haim_tf.models import HierarchicalModel, without_rare_codes
from haim_tf.processor import quick_precision
from haim_tf.training import outcome, patience
from haim_tf.training import strategy as strategies
from haim_tf.training.checkpoint import Checkpoint
from haim_tf.training.code_cache import cached_codes
from haim_tf.training.held_out import HeldOut
from haim_tf.training.optimizer import stage_optimizer
from haim_tf.training.stage_parts import codes_are_final, fresh_networks, trained_parts, trains_codes

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.training.recipe import Recipe
    from haim_tf.training.run_folder import RunFolder
    from haim_tf.training.strategy import Strategy

# How many training images, evenly spaced, tell which codes are rare.
RARE_CODES_IMAGES = 10_000


def train_stage(
    model: HierarchicalModel,
    recipe: Recipe,
    number: int,
    first_step: int,
    kept: ImageData,
    held: ImageData | None,
    run: RunFolder,
    verbose: bool,
    strategy: Strategy | None,
) -> None:
    """Trains what a stage names, or what is left of it, and writes the checkpoint with which the next begins.

    `first_step` counts the steps of the stages before, in whose place the order of batches goes on; `kept` is
    trained on, `held` is watched.
    """
    stage = recipe["stages"][number]
    trained = trained_parts(model, stage)
    model.unfreeze()
    model.freeze(*(set(model.parts) - trained))
    with strategies.scope(strategy):
        model.compile(
            stage_optimizer(stage, trains_codes(model, stage)),
            clip_norm=recipe["clip_norm"],
            steps_per_execution=strategies.steps_a_program(recipe["interval"]),
        )
        model.optimizer.build(model.trainable_variables)
    done = run.position["step"] if run.position["stage"] == number else 0
    watched = None
    if held is not None and run.writes:
        watched = HeldOut(model, held, trained, whole="patience" in stage)
    if done:
        run.restore(model)
    elif not recipe.get("from"):
        model.embed_by_codebooks(*fresh_networks(model, recipe, number))
    if "patience" in stage:
        patience.begin_watch(model, watched, run, number, verbose)
    interval = recipe["interval"]
    batches = haim_data.Batches(
        kept,
        stage["batch_size"],
        flip=recipe["flip"],
        turns=recipe["turns"],
        balance=recipe["balance"],
        seed=recipe["seed"],
        start_step=first_step + done,
        labels=model.num_classes is not None,
        codes=_codes(model, recipe, stage, kept, run, verbose, strategy),
        crop=stage["crop"],
    )
    if done < stage["steps"] and not patience.has_peaked(run, recipe, number):
        strategies.fit(
            model,
            strategy,
            batches,
            steps_per_epoch=interval,
            initial_epoch=done // interval,
            epochs=stage["steps"] // interval,
            callbacks=[Checkpoint(run, recipe, number, watched, verbose)],
        )
    else:
        # Killed between its last step and here: what fit does last is still to be done.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    if "patience" in stage:
        run.restore_best(model)
        patience.tell_best(run, number, verbose)
    elif watched and _averages(model.optimizer):
        _keep_the_better(model, watched, run, number, verbose)
    if recipe["rare_codes_below"] and codes_are_final(model, recipe, number):
        model = prune(model, recipe, kept, verbose)
    run.save(model, number + 1, 0)
    if run.writes:
        shown, step = kept if held is None else held, first_step + stage["steps"]
        outcome.save_pictures(model, shown, run, number, step)
    strategies.wait(strategy)
    run.read_checkpoint()


def _codes(model, recipe, stage, kept, run, verbose, strategy):
    """The images' codes, up to where the stage needs them, or `None` where it trains them (or has none)."""
    if trains_codes(model, stage) or not model.num_levels:
        return None
    # The chief computes and writes them, then the others read them.
    if not run.writes:
        strategies.wait(strategy)
    codes = cached_codes(model, kept, run.folder / "codes.npz", recipe["flip"], verbose, recipe["turns"])
    if run.writes:
        strategies.wait(strategy)
    if stage["crop"]:
        codes = codes[: max(int(name.rpartition("_")[2]) for name in trained_parts(model, stage))]
    return codes


def _averages(optimizer):
    """Whether weights are averaged: the optimizer that does it may be in one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer).use_ema


def _keep_the_better(model, watched, run, number, verbose):
    """Averaged weights are in place now; the last ones, from the checkpoint, replace them where better."""
    averaged = watched.figures(model)
    last = [row for row in run.rows if row["stage"] == number][-1]
    before, after = (sum(found[name] for name in averaged) for found in (last, averaged))
    better = "averaged" if after <= before else "last"
    if better == "last":
        run.restore(model)
    if verbose:
        text = "  ".join(f"{name} {last[name]:.4g} -> {value:.4g}" for name, value in averaged.items())
        progress.tell(f"stage {number + 1} done; averaging weights: {text}; the {better} ones are kept")


def prune(
    model: HierarchicalModel, recipe: Recipe, kept: ImageData, verbose: bool = True
) -> HierarchicalModel:
    """The model without codes rarer on `kept` than the recipe's `rare_codes_below`, in its precision."""
    typical = kept.images[np.linspace(0, len(kept) - 1, min(len(kept), RARE_CODES_IMAGES)).astype(int)]
    smaller = without_rare_codes(model, typical, recipe["rare_codes_below"])
    if verbose:
        progress.tell(f"codes in use: {smaller.codebook_sizes} of {model.codebook_sizes}")
    pruned = HierarchicalModel.from_config(
        {**smaller.get_config(), "dtype": quick_precision(recipe["precision"])}
    )
    pruned.set_weights(smaller.get_weights())
    pruned.weights_history = smaller.weights_history
    return pruned
