"""`train`: the stages of a recipe one after the other, from whatever point an earlier run reached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keras

from haim_tf import data as haim_data
from haim_tf import files, presets, progress
from haim_tf.checks import is_about_arguments
from haim_tf.models import HierarchicalModel
from haim_tf.presets import weights_file
from haim_tf.processor import quick_precision
from haim_tf.training import stages
from haim_tf.training import strategy as strategies
from haim_tf.training.outcome import dress, run_metadata
from haim_tf.training.recipe import (
    CLASSES_OF_DATA,
    Recipe,
    check_recipe,
    check_stages,
    read_recipe,
    with_classes_of,
)
from haim_tf.training.run_folder import RunFolder, check_run_folder

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.training.strategy import Strategy


def train(
    recipe: str | os.PathLike | Recipe,
    source: str | os.PathLike,
    output: str | os.PathLike,
    split: str = "train",
    resume: bool = True,
    verbose: bool = True,
    strategy: str = "none",
) -> HierarchicalModel:
    """Trains a model by a recipe, or goes on with a run that was interrupted.

    The output folder holds `recipe.json`, `data.json` (what it is trained on), `metrics.csv`,
    `checkpoint.npz` (replaced atomically) and at the end `preset/`, which `haim_tf.load` reads.

    NOTE: it sets Keras' global random seed, to the recipe's.

    Args:
        recipe: what `read_recipe` takes or returns: a dict, a JSON file, or a zoo entry's name.
        source, split: what `haim_tf.data.load` reads.
        output: the run's folder, made where absent.
        resume: whether a folder that holds an unfinished run may be gone on with.
        verbose: whether to report progress.
        strategy: "none"; "data_parallel" (under JAX) or "mirrored" (under TensorFlow), all devices of this
            machine; or "multi_worker", all machines that `TF_CONFIG` names (see `docs/distributed.md`). The
            recipe's batch is shared by the devices.

    Returns:
        The trained `HierarchicalModel` (float32).

    Raises:
        FileNotFoundError: no such recipe or data.
        ValueError: a folder that holds something else, or the run of another recipe or other data; data that
            does not fit the recipe; a strategy that cannot be had here; a loss that is no longer finite (the
            last finite checkpoint stays).

    Example:
        >>> recipe = read_recipe("fashion_mnist28", smoke=True)
        >>> model = train(recipe, "fashion_mnist", "runs/mine")
        >>> model = haim_tf.load("runs/mine/preset")
    """
    recipe = read_recipe(recipe)
    strategy = strategies.strategy_named(strategy)
    chief = strategies.is_chief(strategy)
    verbose = verbose and chief
    # What can be known to be wrong is said before data is read, which may take long.
    if chief:
        check_run_folder(output)
    of_data = recipe["model"].get("num_classes") == CLASSES_OF_DATA
    model = _model({**recipe, "model": {**recipe["model"], "num_classes": 1}} if of_data else recipe)
    check_stages(recipe, model)
    images = haim_data.load(source, split, image_shape=model.image_shape)
    if of_data:
        recipe = with_classes_of(recipe, images)
        model = _model(recipe)
    return train_on(images, source, recipe, model, output, split, resume, verbose, strategy)


def train_on(
    images: ImageData,
    source: str | os.PathLike,
    recipe: Recipe,
    model: HierarchicalModel,
    output: str | os.PathLike,
    split: str,
    resume: bool,
    verbose: bool,
    strategy: Strategy | None,
) -> HierarchicalModel:
    """`train`, of images that have been read and a model of the recipe's configuration, which only tells
    shapes and names; `strategy` is a `tf.distribute` strategy or `None`."""
    check_recipe(recipe, model, images)
    strategies.check_batch_sizes(strategy, [stage["batch_size"] for stage in recipe["stages"]])
    strategies.check_stops(strategy, recipe["stages"])
    known = {"source": source_name(source), "split": split, **images.fingerprint()}
    with RunFolder(output, recipe, resume, writes=strategies.is_chief(strategy), data=known) as run:
        # What is written last is known to be writable first.
        if run.writes:
            dress(model, recipe, images)
            metadata = run_metadata(run, recipe, images, model)
            presets.check_savable(model, run.folder / "preset", metadata=metadata, overwrite=True)
        del model
        if verbose:
            progress.tell(f"training on {len(images)} images of {images.name}, {images.split}")
            if quick_precision(recipe["precision"]) != recipe["precision"]:
                progress.tell(f"in float32: this processor is slow at {recipe['precision']}")
        return _train(recipe, images, run, verbose, strategy)


def _model(recipe):
    try:
        return HierarchicalModel(**recipe["model"], dtype=recipe["precision"])
    except Exception as error:
        if not is_about_arguments(error):
            raise
        raise ValueError(f"a recipe's model must be arguments of HierarchicalModel: {error}") from error


def source_name(source: str | os.PathLike) -> str:
    """A source as it can be found from any folder: a path absolute, the name of a TFDS data set as it is."""
    path = files.absolute(source)
    return haim_data.printable(str(path if path.exists() else source))


def _train(recipe, images, run, verbose, strategy):
    strategies.wait(strategy, run.position.values())
    # What was done to its preset since then, such as a choice of how to sample, is not undone.
    finished = run.position["stage"] >= len(recipe["stages"]) and _is_whole(run.folder / "preset")
    kept, held = images.split_off(recipe["holdout"]) if recipe["holdout"] else (images, None)
    if verbose and held is not None and kept.labels is not None:
        theirs, others = set(held.labels), set(kept.labels)
        wrong = ""
        if unseen := len(theirs - others):
            wrong = f"classes ({unseen}) that no other image has"
        elif len(theirs) < min(len(held), len(others)) / 2:
            wrong = f"{len(theirs)} of the {len(others)} classes"
        if wrong:
            progress.tell(
                f"warning: the last {len(held)} images of {images.name}, which are held out, have {wrong}: "
                "mix the images"
            )

    first_step = 0
    for number, stage in enumerate(recipe["stages"]):
        if number >= run.position["stage"]:
            model = _current_model(run, recipe, images, strategy)
            stages.train_stage(model, recipe, number, first_step, kept, held, run, verbose, strategy)
        first_step += stage["steps"]
    trained = HierarchicalModel(**(run.model_arguments or recipe["model"]))
    run.restore(trained)
    dress(trained, recipe, images)
    # Where the only stage brought nothing better, the weights are those that it began with.
    began_best = run.best is not None and run.best["step"] == 0 and len(recipe["stages"]) == 1
    trained.fitted, trained.fitted_on = not began_best, images.name
    if run.writes and not finished:
        metadata = run_metadata(run, recipe, images, trained)
        presets.save_to_preset(trained, run.folder / "preset", metadata=metadata, overwrite=True)
    strategies.wait(strategy)  # A worker that left would take the chief with it.
    return trained


def _is_whole(folder):
    """Whether a preset with its own weights is there."""
    try:
        _, metadata = presets.read(folder)
        weights_file.check(folder / presets.WEIGHTS, metadata.get("sha256"))
    except (OSError, ValueError):
        return False
    return True


def _current_model(run, recipe, images, strategy):
    """A model of the configuration that the run has reached: codes may have been dropped on the way."""
    keras.utils.set_random_seed(recipe["seed"])
    with strategies.scope(strategy):
        dtype = quick_precision(recipe["precision"])
        model = HierarchicalModel(**(run.model_arguments or recipe["model"]), dtype=dtype)
    if run.model_arguments is None and recipe.get("from"):
        keras.utils.set_random_seed(recipe["seed"])
        start = load_for(recipe["from"]["model"], images)
        if start.origin != recipe["from"]["origin"]:
            raise ValueError(
                f"{recipe['from']['model']} must be the preset that the run began with, got another"
            )
        if start.arguments != model.arguments:
            raise ValueError(f"the recipe's model must be that of {recipe['from']['model']}, got another")
        model.set_weights(start.get_weights())
    run.restore(model)
    return model


def load_for(name: str | os.PathLike, images: ImageData) -> HierarchicalModel:
    """A preset's model with the classes of an `ImageData`, by name where it has names."""
    if images.labels is None:
        return presets.load(name, weights=True)
    classes = {"num_classes": int(images.labels.max()) + 1}
    if images.class_names is not None:
        classes = {"class_names": images.class_names}
    return presets.load(name, weights=True, **classes)
