"""`fine_tune`: a preset learns pictures of one's own."""

import os
from collections.abc import Sequence

import numpy as np

from haim_tf import data as haim_data
from haim_tf import files, presets, progress
from haim_tf.checks import require_int
from haim_tf.class_names import relabelled
from haim_tf.data import ImageData
from haim_tf.models import HierarchicalModel
from haim_tf.training import strategy as strategies
from haim_tf.training.held_out import WATCHED
from haim_tf.training.recipe import check_stages, read_recipe
from haim_tf.training.run_folder import check_run_folder
from haim_tf.training.whole_run import load_for, train_on

# Steps between two looks at the held-out images.
INTERVAL = 50
WARM_UP = 100
HELD_OUT_SHARE = 0.1


def fine_tune(
    model: str | os.PathLike,
    source: str | os.PathLike,
    output: str | os.PathLike,
    split: str = "train",
    freeze: Sequence[str] = ("codes",),
    steps: int = 2000,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    holdout: int | None = None,
    patience: int = 5,
    flip: bool = False,
    seed: int = 0,
    smoke: bool = False,
    resume: bool = True,
    verbose: bool = True,
    strategy: str = "none",
) -> HierarchicalModel:
    """Fine-tunes a preset on pictures of one's own, or goes on with a run that was interrupted.

    The classes are those of the pictures: those that the preset knows by name begin as it knows them, others
    as any of its classes. Pictures without classes are one class, named as their source, where the preset
    takes labels. The learning rate rises over the first steps and then falls to a hundredth. The last
    pictures are held out of training: when their bits/dim have not been better for a while, training ends,
    and with the weights that were best, which are those of the preset where nothing was better.

    Args:
        model: a name of `list_models()`, or a preset folder.
        source, split: what `haim_tf.data.load` reads, brought to the preset's size.
        output: the run's folder, made where absent, see `train`; `preset/` in it will be the model.
        freeze: names of parts that stay as they are: "codes", "decoders", "prior", "level_1", ...
        steps: at most so many, rounded up to whole intervals of 50.
        learning_rate: Adam's, at its highest.
        batch_size: images in a step.
        holdout: how many pictures are held out; by default a tenth of them, at most 256.
        patience: training ends after so many intervals in a row that brought nothing better.
        flip: mirror half of the pictures, drawn at random.
        seed: of a new class embedding and of the order of pictures; Keras' global seed is set by it.
        smoke: a few steps of a few images only, to try the whole path.
        resume: whether a folder that holds an unfinished run may be gone on with.
        verbose: whether to report progress.
        strategy: as for `train`, but for "multi_worker", whose other workers would not know when to end.

    Returns:
        The fine-tuned `HierarchicalModel`.

    Raises:
        ValueError, FileNotFoundError: as `train`; a preset without weights; parts that do not exist, or none
            left to train.

    Example:
        >>> model = fine_tune("imagenet32", "my_folder", "runs/mine")
        >>> images = model.sample(16, labels="cat")
    """
    strategy = strategies.strategy_named(strategy)
    verbose = verbose and strategies.is_chief(strategy)
    # What can be known to be wrong is said before pictures are read, which may take long.
    check_run_folder(output)
    start = presets.load(model, weights=True)
    trained = _trained_parts(start, freeze)
    steps = require_int("steps", steps, low=1)
    interval = min(INTERVAL, steps)
    recipe = read_recipe(
        {
            "model": start.arguments,
            "seed": seed,
            "batch_size": batch_size,
            "flip": flip,
            "holdout": 1 if holdout is None else holdout,
            "interval": interval,
            "stages": [
                {
                    "train": trained,
                    "steps": -(-steps // interval) * interval,
                    "learning_rate": learning_rate,
                    "warmup": min(WARM_UP, steps // 4),
                    "patience": patience,
                }
            ],
        },
        smoke=smoke,
    )
    check_stages(recipe, start)
    images = haim_data.load(source, split, image_shape=start.image_shape)
    if images.labels is None and start.num_classes:
        images = images.with_labels(np.zeros(len(images), "int32"), [_name_of(images)])
    if len(images) < 2:
        raise ValueError(f"{images.name} must have at least 2 images, one to hold out, got {len(images)}")
    images = images.mixed()  # The last ones are held out.
    start = load_for(model, images)
    images = relabelled(images, start)  # Numbers alone stand for the preset's classes, and it is said.
    recipe["model"] = start.arguments
    recipe["from"] = {
        "model": _found_from_anywhere(model),
        "origin": start.origin,
        "class_names": start.class_names,
        "sampling": start.get_config()["sampling_defaults"],
    }
    if smoke:
        recipe["holdout"] = min(recipe["holdout"], len(images) - 1)
    elif holdout is None:
        recipe["holdout"] = _held_out(len(images))
    if verbose:
        for warning in start.left_behind(trained):
            progress.tell(f"warning: {warning}")
    return train_on(images, source, recipe, start, output, split, resume, verbose, strategy)


def _held_out(count):
    return max(1, min(WATCHED, round(HELD_OUT_SHARE * count)))


def _name_of(images: ImageData):
    """What pictures without classes are called: the name of their folder or file."""
    return files.expanded(images.name).stem or "pictures"


def _found_from_anywhere(model):
    """A preset's name as it is, a folder's path absolute."""
    path = files.absolute(model)
    known = isinstance(model, str) and (model in presets.list_models() or not path.is_dir())
    return model if known else str(path)


def _trained_parts(model, freeze):
    """The names of the parts that are not frozen, sorted."""
    names = [freeze] if isinstance(freeze, str) else list(freeze or ())
    trained = sorted(model.parts_that_learn - model.parts_named(names))
    if not trained:
        raise ValueError(f"freeze must leave a part to train, got {names} of {', '.join(model.parts)}")
    return trained
