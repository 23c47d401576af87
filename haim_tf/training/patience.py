"""Patience: a stage ends where the held-out images stop gaining, and keeps the best weights on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haim_tf import progress

if TYPE_CHECKING:
    from haim_tf.models import HierarchicalModel
    from haim_tf.training.held_out import HeldOut
    from haim_tf.training.recipe import Recipe
    from haim_tf.training.run_folder import RunFolder

# What patience goes by: the bits/dim of the held-out images.
SCORE = "holdout_bits_per_dim_total"


def begin_watch(
    model: HierarchicalModel, watched: HeldOut, run: RunFolder, number: int, verbose: bool
) -> None:
    """Takes the weights that a stage with patience begins with as its best ones, with a row of the log."""
    if any(row["stage"] == number for row in run.rows):
        if run.best is None or run.best["stage"] != number:
            raise ValueError(f"{run.folder} lacks its best.npz: remove checkpoint.npz to start the run anew")
        return
    figures = watched.figures(model)
    run.save_best(model, number, 0, figures[SCORE])
    run.save(model, number, 0, {"stage": number, "step": 0, "seconds": 0.0, **figures})
    if verbose:
        progress.tell(f"held-out bits/dim before the first step: {figures[SCORE]:.4f}")


def has_peaked(run: RunFolder, recipe: Recipe, number: int) -> bool:
    """Whether a stage's patience has run out at the run's position."""
    patience = recipe["stages"][number].get("patience")
    if patience is None or run.position["stage"] != number:
        return False
    return run.position["step"] - run.best["step"] >= patience * recipe["interval"]


def tell_best(run: RunFolder, number: int, verbose: bool) -> None:
    """Says after a stage which of its weights are kept."""
    rows = [row for row in run.rows if row["stage"] == number]
    if verbose:
        progress.tell(
            f"stage {number + 1} done after {rows[-1]['step']} steps; the weights of step {run.best['step']} "
            f"are kept: held-out bits/dim {rows[0][SCORE]:.4f} -> {run.best['score']:.4f}"
        )
