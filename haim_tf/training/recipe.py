"""Recipes: everything that a training needs to know but the data.

A recipe is a JSON file (or dict):

    {"model": {...},              arguments of HierarchicalModel
     "seed": 0, "batch_size": 32, "flip": true, "turns": false, "balance": 0.5, "holdout": 1000,
     "interval": 250, "precision": "mixed_bfloat16", "ema": 0.99, "clip_norm": 1.0,
     "rare_codes_below": 0.1,
     "stages": [{"train": ["codes"], "steps": 3000, "learning_rate": 0.001, "warmup": 200}, ...],
     "variants": {"flat": {...}}} named sets of other values for the keys above, such as a baseline's

Each stage trains the named parts (see `HierarchicalModel.freeze`) with a fresh Adam, linear warm-up and
cosine decay; `batch_size` and `ema` may be a stage's own.

- **Averages.** With `ema` a stage ends with the moving average of its weights, which reaches back 1 / (1 -
  `ema`) steps, though never more than about a tenth of the steps so far; where images are held out, with the
  better of the average and the last weights. Stages that train codes have none: an averaged encoder and its
  codebook would drift apart.
- **Images.** With `flip` half of the images, drawn at random, are mirrored left to right; with `turns` each
  is turned by none to three quarters (for pictures without an up; they must be square).
- **Classes.** `balance`, 0 to 1, draws them more evenly: an image of a class of n images with a probability
  proportional to n ** -`balance`; 0 leaves them as they are, 1 makes all classes alike. `"num_classes":
  "data"` in `model` takes the number of classes from the data.
- **Codes.** Stages that leave the codes as they are read them from `codes.npz`, which the first of them
  writes; with `flip` and `turns` those of the mirrored and turned images too. Networks that are trained first
  then start from the codebooks (see `HierarchicalModel.embed_by_codebooks`).
- **Rare codes.** After the last stage that trains codes, those rarer than `rare_codes_below` of uniform usage
  are dropped (see `models.without_rare_codes`); by default none is.
- **Crops.** With `"crop": 32` a stage that trains main decoders learns on random squares of 32 pixels,
  aligned to the codes. Not with attention, which counts positions.
- **Early stops.** A stage with `"patience": 5` ends once five intervals in a row brought no better
  bits/dim of the held-out images, and with the weights that were best, those that it began with included.
- **Held-out images.** The last `holdout` training images are kept out; every `interval` steps the bits/dim of
  (at most 256 of) them under the trained networks, and the loss of the trained autoencoders, are logged.
- **From a preset.** With `from`, which `fine_tune` writes, training begins with the weights of a preset.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from haim_tf.checks import require_int, require_number
from haim_tf.data.batches import check_symmetries_and_balance
from haim_tf.files import check_finite, expanded, read_json
from haim_tf.models.inputs import check_crop
from haim_tf.training.stage_parts import trained_parts

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.models import HierarchicalModel

# What `read_recipe` gives, or its source as a dict.
Recipe = dict[str, Any]

DEFAULTS = {
    "seed": 0,
    "batch_size": 32,
    "flip": False,
    "turns": False,
    "balance": 0.0,
    "holdout": 0,
    "interval": 250,
    "precision": "float32",
    "ema": None,
    "clip_norm": 1.0,
    "rare_codes_below": 0.0,
    "variants": {},
}
STAGE_DEFAULTS = {"train": None, "warmup": 0, "crop": None}
# What a stage may have of its own.
STAGE_OVERRIDES = ("batch_size", "ema")
# What is left out where it is not wanted.
OPTIONAL, STAGE_OPTIONAL = ("from",), ("patience",)

# In place of the number of classes: as many as the data has.
CLASSES_OF_DATA = "data"

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

# What `fine_tune` says of the preset that a training begins with.
START = {"model": str, "origin": dict, "class_names": (list, type(None)), "sampling": (dict, type(None))}

SMOKE_STEPS = 2
# Keras' optimizers count steps in 32 bits.
MAX_STEPS = 2**31 - 1
MAX_BATCH_SIZE = 2**20
# Seeds of samples are 32-bit.
MAX_SEED = 2**31 - 1


def read_recipe(
    source: str | os.PathLike | Recipe, variant: str | None = None, smoke: bool = False
) -> Recipe:
    """A recipe with its defaults filled in.

    Args:
        source: a dict, the path of a JSON file, or the name of a zoo entry that has a `recipe.json`.
        variant: name of one of the recipe's `variants`, or `None` for the recipe itself.
        smoke: whether to cut every stage down to a few steps of a few images, to try the whole path.

    Raises:
        ValueError, FileNotFoundError: not a recipe, unknown or missing keys.

    Example:
        >>> read_recipe("fashion_mnist28", variant="flat")["seed"]
        0
    """
    if not isinstance(source, (dict, str, os.PathLike)):
        raise ValueError(f"a recipe must be a dict, a JSON file or a zoo entry's name, got {source!r:.60}")
    if not isinstance(source, dict):
        source = read_json(_find_recipe(source))
    if not isinstance(source, dict):
        raise ValueError(f"a recipe must be a JSON object, got {str(source)[:60]!r}")
    try:  # NumPy's values become Python's.
        source = json.loads(json.dumps(source, default=lambda value: value.tolist()))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"a recipe must hold what JSON can: {error}") from error
    recipe = {**DEFAULTS, **source}
    variants = recipe.pop("variants")
    if not isinstance(variants, dict) or not all(isinstance(v, dict) for v in variants.values()):
        raise ValueError(f"a recipe's variants must be JSON objects by name, got {str(variants)[:60]}")
    if variant is not None:
        if variant not in variants:
            raise ValueError(f"unknown variant {variant!r}; this recipe has {sorted(variants)}")
        recipe.update(variants[variant])
    unknown = set(recipe) - {*DEFAULTS, *OPTIONAL, "model", "stages"}
    if unknown or "model" not in recipe or not recipe.get("stages"):
        raise ValueError(
            f"a recipe has 'model', 'stages' and may have {sorted([*DEFAULTS, *OPTIONAL])}; "
            f"got keys {sorted(source)}"
        )
    if not isinstance(recipe["stages"], (list, tuple)):
        raise ValueError(f"a recipe's stages must be a list, got {str(recipe['stages'])[:60]}")
    check_finite(recipe, "the recipe")
    _check_values(recipe)
    stages = []
    for stage in recipe["stages"]:
        if not isinstance(stage, dict):
            raise ValueError(f"a stage must be a JSON object, got {stage!r}")
        known = {*STAGE_DEFAULTS, *STAGE_OVERRIDES, *STAGE_OPTIONAL, "steps", "learning_rate"}
        unknown = set(stage) - known
        if unknown or "steps" not in stage or "learning_rate" not in stage:
            raise ValueError(
                "a stage has 'steps', 'learning_rate' and may have 'train' (part names; all by default), "
                f"'warmup', 'crop', 'patience', {' and '.join(map(repr, STAGE_OVERRIDES))}; got {stage}"
            )
        own = {name: recipe[name] for name in STAGE_OVERRIDES}
        stages.append(_checked_stage({**STAGE_DEFAULTS, **own, **stage}, len(stages) + 1))
    if smoke:
        stages = [{**stage, "steps": SMOKE_STEPS, "warmup": 0, "batch_size": 8} for stage in stages]
        recipe.update(holdout=8, interval=SMOKE_STEPS // 2)
    for stage in stages:
        if stage["steps"] % recipe["interval"]:
            raise ValueError(
                "the steps of each stage must be a positive multiple of "
                f"interval {recipe['interval']}, got {stage}"
            )
    recipe["stages"] = stages
    return recipe


def _check_values(recipe):
    """Brings a recipe's own values to Python's types; a ValueError for one that no training can use."""
    for name, low, high in (
        ("seed", 0, MAX_SEED),
        ("batch_size", 1, MAX_BATCH_SIZE),
        ("holdout", 0, None),
        ("interval", 1, MAX_STEPS),
    ):
        recipe[name] = require_int(f"a recipe's {name}", recipe[name], low=low, high=high)
    if recipe.get("from") is not None:
        _check_start(recipe["from"])
    for name in ("flip", "turns"):
        if not isinstance(recipe[name], bool):
            raise ValueError(f"a recipe's {name} must be true or false, got {recipe[name]!r}")
    recipe["balance"] = require_number("a recipe's balance", recipe["balance"], low=0, high=1)
    recipe["rare_codes_below"] = require_number(
        "a recipe's rare_codes_below", recipe["rare_codes_below"], low=0, below=1
    )
    if recipe["clip_norm"] is not None:
        recipe["clip_norm"] = require_number("a recipe's clip_norm", recipe["clip_norm"], above=0)
    if recipe["precision"] not in PRECISIONS:
        raise ValueError(
            f"a recipe's precision must be one of {', '.join(PRECISIONS)}, got {recipe['precision']!r}"
        )
    if not isinstance(recipe["model"], dict):
        raise ValueError(f"a recipe's model must be a JSON object, got {recipe['model']!r}")


def _check_start(start):
    """A ValueError where `from` is not what `fine_tune` writes."""
    fits = isinstance(start, dict) and set(start) == set(START)
    if not fits or not all(isinstance(start[key], kind) for key, kind in START.items()):
        raise ValueError(
            f"a recipe's from must be as haim_tf train --from writes it, an object of {', '.join(START)}, "
            f"got {start!r:.60}"
        )


def _checked_stage(stage, number):
    """A stage with values of Python's types; a ValueError as for `_check_values`."""
    name = f"stage {number}: "
    for key, high in (("steps", MAX_STEPS), ("batch_size", MAX_BATCH_SIZE)):
        stage[key] = require_int(name + key, stage[key], low=1, high=high)
    stage["learning_rate"] = require_number(name + "learning_rate", stage["learning_rate"], above=0)
    stage["warmup"] = require_int(name + "warmup", stage["warmup"], low=0, high=stage["steps"])
    stage["crop"] = require_int(name + "crop", stage["crop"], low=1, optional=True)
    if stage["ema"] is not None:
        stage["ema"] = require_number(name + "ema", stage["ema"], low=0, below=1)
    if "patience" in stage:
        stage["patience"] = require_int(name + "patience", stage["patience"], low=1)
        if stage["ema"] is not None:
            raise ValueError(
                f"{name}patience and ema must not both be given: the best weights are kept as they are"
            )
    parts = stage["train"]
    if parts is not None and not (
        isinstance(parts, (list, tuple)) and parts and all(isinstance(part, str) for part in parts)
    ):
        raise ValueError(f"{name}train must be a list of part names, or null for all, got {parts!r}")
    return stage


def _find_recipe(source):
    path = expanded(source)
    if path.is_file():
        return path
    from haim_tf.presets.folder import zoo

    entry = zoo() / str(source) / "recipe.json"
    if not entry.is_file():
        raise FileNotFoundError(f"no recipe: {source!r} is neither a file nor a zoo entry with a recipe.json")
    return entry


def check_stages(recipe: Recipe, model: HierarchicalModel) -> None:
    """Everything about a recipe that its model can tell, before data is read.

    Raises:
        ValueError: parts that the model does not have, or that cannot learn; crops where they cannot be;
            patience without held-out images.
    """
    for stage in recipe["stages"]:
        if not (trained := trained_parts(model, stage)):
            raise ValueError(f"a stage must train parts that this model has and that can learn, got {stage}")
        for level, autoencoder in enumerate(model.autoencoders, start=1):
            both = [f"autoencoder_{level}", f"decoder_{level}"]
            if autoencoder.end_to_end and trained.intersection(both) == {both[0]}:
                raise ValueError(f"a stage that trains codes end to end must train both of {both}")
        if not stage["crop"]:
            continue
        check_crop(model, trained, stage["crop"], stage)
    if any("patience" in stage for stage in recipe["stages"]) and not recipe["holdout"]:
        raise ValueError("a stage with patience must have held-out images: holdout must be 1 or more, got 0")


def check_recipe(recipe: Recipe, model: HierarchicalModel, images: ImageData) -> None:
    """Everything about a recipe that its model and its data can tell before the first step.

    Args:
        recipe: as `read_recipe` returns.
        model: the `HierarchicalModel` of it.
        images: the `ImageData` to train on.

    Raises:
        ValueError: what `check_stages` finds, turns where they cannot be, labels or classes that do not fit
            the model or what it was fine-tuned from, too few images.
    """
    check_stages(recipe, model)
    if recipe["holdout"] and not 0 < recipe["holdout"] < len(images):
        raise ValueError(f"holdout must leave images to train on, got {recipe['holdout']} of {len(images)}")
    check_symmetries_and_balance(recipe["turns"], recipe["balance"], images)
    check_labels(model.num_classes, images)
    known = (recipe.get("from") or {}).get("class_names")
    if known and images.class_names and list(images.class_names) != list(known):
        raise ValueError(
            f"the recipe fine-tunes a model on the classes {', '.join(known[:8])}, but {images.name} has "
            f"{', '.join(images.class_names[:8])}: begin such a run with fine_tune, or --from"
        )


def with_classes_of(recipe: Recipe, images: ImageData) -> Recipe:
    """The recipe, with the number of an `ImageData`'s classes where it leaves that to the data.

    Raises:
        ValueError: there are no labels to count.
    """
    if recipe["model"].get("num_classes") != CLASSES_OF_DATA:
        return recipe
    if images.labels is None:
        raise ValueError(f"the recipe has the classes of its data, but {images.name} has no labels")
    names = images.class_names
    count = int(images.labels.max()) + 1 if names is None else len(names)
    return {**recipe, "model": {**recipe["model"], "num_classes": count}}


def check_labels(num_classes: int | None, images: ImageData) -> None:
    """A ValueError unless the labels and class names of an `ImageData` fit a number of classes."""
    if num_classes is None:
        return
    if images.labels is None:
        raise ValueError(f"the model has num_classes={num_classes}, but {images.name} has no labels")
    if images.class_names is not None and len(images.class_names) != num_classes:
        raise ValueError(
            f"the model has num_classes={num_classes}, but {images.name} has {len(images.class_names)} "
            f"classes: {', '.join(images.class_names[:8])}{', ...' if len(images.class_names) > 8 else ''}"
        )
    if images.labels.max() >= num_classes:
        raise ValueError(
            f"the model has num_classes={num_classes}, but {images.name} has labels up to "
            f"{images.labels.max()}"
        )
