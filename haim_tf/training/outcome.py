"""What a run leaves beside weights: what its preset says of itself, and pictures of what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from haim_tf.presets.saving import provenance
from haim_tf.processor import quick_precision
from haim_tf.training.held_out import WATCHED
from haim_tf.training.patience import SCORE
from haim_tf.training.stage_parts import trained_parts

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.models import HierarchicalModel
    from haim_tf.training.recipe import Recipe
    from haim_tf.training.run_folder import RunFolder


def dress(model: HierarchicalModel, recipe: Recipe, images: ImageData) -> None:
    """Gives a model what is known of it beside its weights."""
    model.class_names = images.class_names if model.num_classes else None
    if start := recipe.get("from"):
        model.class_names, model.sampling_defaults = start["class_names"], start["sampling"]
        model.origin = start["origin"]


def run_metadata(
    run: RunFolder, recipe: Recipe, images: ImageData, model: HierarchicalModel
) -> dict[str, Any]:
    """What a preset says of how its model was trained."""
    steps = [
        max((row["step"] for row in run.rows if row["stage"] == number), default=stage["steps"])
        for number, stage in enumerate(recipe["stages"])
    ]
    sizes = [stage["batch_size"] for stage in recipe["stages"]]
    drawn = {}
    if recipe["flip"] or recipe["turns"]:
        drawn["augmentation"] = " and ".join(
            said for key, said in (("flip", "flips"), ("turns", "quarter turns")) if recipe[key]
        )
    if recipe["balance"]:
        drawn["classes"] = f"drawn more evenly: an image of a class of n by n ** -{recipe['balance']:g}"
    known = provenance(model)
    metadata = {
        "name": run.folder.name,
        "pretrained": known["pretrained"] if recipe.get("from") else True,
        "dataset": known.get("dataset") or {"name": images.name},
        "training": {
            **known.get("training", {}),
            "steps": steps,
            "images_seen": [count * size for count, size in zip(steps, sizes, strict=True)],
            "hours": round(sum(row["seconds"] for row in run.rows) / 3600, 2),
            **drawn,
            "precision": quick_precision(recipe["precision"]),
            "backend": keras.backend.backend(),
        },
    }
    # Of the last stage, that is: later ones would have trained on. Killed as such a stage began, a run may
    # have its best weights and no row of it yet.
    last = len(recipe["stages"]) - 1
    watched = [row for row in run.rows if run.best and row["stage"] == run.best["stage"] == last]
    if watched:
        metadata["training"]["kept"] = (
            f"the weights of step {run.best['step']}, the best of the held-out images"
        )
        count = min(recipe["holdout"], WATCHED)
        began = "as loaded" if recipe.get("from") and not last else f"before stage {last + 1}"
        metadata["metrics"] = [
            {
                "name": f"bits/dim {when}",
                "value": round(value, 4),
                "split": "held out of training",
                "count": count,
            }
            for when, value in ((began, watched[0][SCORE]), ("after", run.best["score"]))
        ]
    return metadata


def save_pictures(model: HierarchicalModel, images: ImageData, run: RunFolder, stage: int, step: int) -> None:
    """Sheets of what the stage taught: reconstructions by every level's codes, and samples."""
    trained = trained_parts(model, run.recipe["stages"][stage])
    originals = images.images[np.arange(min(16, len(images)))]
    rows = [originals]
    for level in filter(model.has_auxiliary, range(1, model.num_levels + 1)):
        rows.append(model.reconstruct(originals, level=level, decoder="auxiliary"))
    if len(rows) > 1:
        run.save_picture("reconstructions", np.concatenate(rows), len(originals), step)
    networks = set(model.parts_named(["decoders", "prior"]))
    seen = set().union(*(trained_parts(model, s) for s in run.recipe["stages"][: stage + 1]))
    if trained & networks and networks <= seen:
        run.save_picture("samples", model.sample(64, seed=run.recipe["seed"]), 8, step)
