"""`train`: the stages of a recipe one after the other, from whatever point an earlier run reached."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from haim_tf import data as haim_data
from haim_tf import files, presets, progress
from haim_tf.checks import is_about_arguments
from haim_tf.models import HierarchicalModel, without_rare_codes
from haim_tf.presets.saving import provenance
from haim_tf.training import strategy as strategies
from haim_tf.training.code_cache import cached_codes
from haim_tf.training.held_out import WATCHED, HeldOut
from haim_tf.training.recipe import CLASSES_OF_DATA, Recipe, check_recipe, with_classes_of
from haim_tf.training.run_folder import RunFolder

if TYPE_CHECKING:
    from haim_tf.data import ImageData
    from haim_tf.layers.types import Tensor
    from haim_tf.training.strategy import Strategy

# How many training images, evenly spaced, tell which codes are rare.
RARE_CODES_IMAGES = 10_000
# At least how long between two moves of the bar.
BAR_SECONDS = 0.5
# What patience goes by: the bits/dim of the held-out images.
SCORE = "holdout_bits_per_dim_total"


def train(
    recipe: Recipe,
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

    Args:
        recipe: as `read_recipe` returns.
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
        ValueError: a folder that holds something else, or the run of another recipe or other data; data that
            does not fit the recipe; a strategy that cannot be had here; a loss that is no longer finite (the
            last finite checkpoint stays).

    Example:
        >>> recipe = read_recipe("fashion_mnist28", smoke=True)
        >>> model = train(recipe, "fashion_mnist", "runs/mine")
        >>> model = haim_tf.load("runs/mine/preset")
    """
    strategy = strategies.strategy_named(strategy)
    chief = strategies.is_chief(strategy)
    verbose = verbose and chief
    if recipe["model"].get("num_classes") == CLASSES_OF_DATA:
        images = haim_data.load(source, split, image_shape=recipe["model"].get("image_shape"))
        recipe = with_classes_of(recipe, images)
        model = _model(recipe)
    else:  # What is wrong with the model is said before data is read, which may take long.
        model = _model(recipe)
        images = haim_data.load(source, split, image_shape=model.image_shape)
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
    known = {"source": _source_name(source), "split": split, **images.fingerprint()}
    with RunFolder(output, recipe, resume, writes=strategies.is_chief(strategy), data=known) as run:
        # What is written last is known to be writable first.
        if run.writes:
            _dress(model, recipe, images)
            metadata = _metadata(run, recipe, images, model)
            presets.check_savable(model, run.folder / "preset", metadata=metadata, overwrite=True)
        del model
        if verbose:
            progress.tell(f"training on {len(images)} images of {images.name}, {images.split}")
        return _train(recipe, images, run, verbose, strategy)


def _model(recipe):
    try:
        return HierarchicalModel(**recipe["model"], dtype=recipe["precision"])
    except Exception as error:
        if not is_about_arguments(error):
            raise
        raise ValueError(f"a recipe's model must be arguments of HierarchicalModel: {error}") from error


def _source_name(source):
    """A source as it can be found from any folder: a path absolute, the name of a TFDS data set as it is."""
    path = files.absolute(source)
    return haim_data.printable(str(path if path.exists() else source))


def _train(recipe, images, run, verbose, strategy):
    strategies.wait(strategy, run.position.values())
    model = _current_model(run, recipe, images, strategy)
    kept, held = images.split_off(recipe["holdout"]) if recipe["holdout"] else (images, None)

    first_step = 0
    for number, stage in enumerate(recipe["stages"]):
        if number >= run.position["stage"]:
            _train_stage(model, recipe, number, first_step, kept, held, run, verbose, strategy)
            model = _current_model(run, recipe, images, strategy)
        first_step += stage["steps"]
    run.restore(model)
    trained = HierarchicalModel(**(run.model_arguments or recipe["model"]))
    trained.set_weights(model.get_weights())
    _dress(trained, recipe, images)
    # Where the only stage brought nothing better, the weights are those that it began with.
    began_best = run.best is not None and run.best["step"] == 0 and len(recipe["stages"]) == 1
    trained.fitted, trained.fitted_on = not began_best, images.name
    if run.writes:
        metadata = _metadata(run, recipe, images, trained)
        presets.save_to_preset(trained, run.folder / "preset", metadata=metadata, overwrite=True)
    strategies.wait(strategy)  # A worker that left would take the chief with it.
    return trained


def _dress(model, recipe, images):
    """Gives a model what is known of it beside its weights."""
    model.class_names = images.class_names if model.num_classes else None
    if start := recipe.get("from"):
        model.class_names, model.sampling_defaults = start["class_names"], start["sampling"]
        model.origin = start["origin"]


def _current_model(run, recipe, images, strategy):
    """A model of the configuration that the run has reached: codes may have been dropped on the way."""
    keras.utils.set_random_seed(recipe["seed"])
    with strategies.scope(strategy):
        model = HierarchicalModel(**(run.model_arguments or recipe["model"]), dtype=recipe["precision"])
    if run.model_arguments is None and recipe.get("from"):
        keras.utils.set_random_seed(recipe["seed"])
        start = load_for(recipe["from"]["model"], images)
        if start.origin != recipe["from"]["origin"]:
            raise ValueError(
                f"{recipe['from']['model']} must be the preset that the run began with, got another"
            )
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


def _train_stage(model, recipe, number, first_step, kept, held, run, verbose, strategy):
    stage = recipe["stages"][number]
    trained = _trained_parts(model, stage)
    model.unfreeze()
    model.freeze(*(set(model.parts) - trained))
    with strategies.scope(strategy):
        model.compile(
            _optimizer(stage, _trains_codes(model, stage)),
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
    elif "from" not in recipe:
        model.embed_by_codebooks(*_fresh_networks(model, recipe, number))
    if "patience" in stage:
        _begin_watch(model, watched, run, number, verbose)
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
    if done < stage["steps"] and not _has_peaked(run, recipe, number):
        strategies.fit(
            model,
            strategy,
            batches,
            steps_per_epoch=interval,
            initial_epoch=done // interval,
            epochs=stage["steps"] // interval,
            callbacks=[_Checkpoint(run, recipe, number, watched, verbose)],
        )
    else:
        # Killed between its last step and here: what fit does last is still to be done.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    if "patience" in stage:
        run.restore_best(model)
        _tell_best(run, number, verbose)
    elif watched and model.optimizer.use_ema:
        _keep_the_better(model, watched, run, number, verbose)
    if recipe["rare_codes_below"] and _codes_are_final(model, recipe, number):
        model = _prune(model, recipe, kept, verbose)
    run.save(model, number + 1, 0)
    if run.writes:
        _save_pictures(model, kept if held is None else held, run, number, first_step + stage["steps"])
    strategies.wait(strategy)
    run.read_checkpoint()


def _begin_watch(model, watched, run, number, verbose):
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


def _has_peaked(run, recipe, number):
    """Whether a stage's patience has run out at the run's position."""
    patience = recipe["stages"][number].get("patience")
    if patience is None or run.position["stage"] != number:
        return False
    return run.position["step"] - run.best["step"] >= patience * recipe["interval"]


def _tell_best(run, number, verbose):
    rows = [row for row in run.rows if row["stage"] == number]
    if verbose:
        progress.tell(
            f"stage {number + 1} done after {rows[-1]['step']} steps; the weights of step {run.best['step']} "
            f"are kept: held-out bits/dim {rows[0][SCORE]:.4f} -> {run.best['score']:.4f}"
        )


def _trained_parts(model, stage):
    return model.parts_named(stage["train"] or model.parts)


def _trains_codes(model, stage):
    return bool(_trained_parts(model, stage) & model.parts_named(["codes"]))


def _codes_are_final(model, recipe, number):
    """Whether a stage is the last one that trains codes."""
    training = [_trains_codes(model, stage) for stage in recipe["stages"]]
    return training[number] and not any(training[number + 1 :])


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


def _prune(model, recipe, kept, verbose):
    """The model without its rare codes, in the recipe's precision."""
    typical = kept.images[np.linspace(0, len(kept) - 1, min(len(kept), RARE_CODES_IMAGES)).astype(int)]
    smaller = without_rare_codes(model, typical, recipe["rare_codes_below"])
    if verbose:
        progress.tell(f"codes in use: {smaller.codebook_sizes} of {model.codebook_sizes}")
    pruned = HierarchicalModel.from_config({**smaller.get_config(), "dtype": recipe["precision"]})
    pruned.set_weights(smaller.get_weights())
    return pruned


def _fresh_networks(model, recipe, number):
    """The parts that a stage is the first to train, where it leaves the codes as earlier stages made them."""
    stages = recipe["stages"]
    trained = _trained_parts(model, stages[number])
    earlier = [_trained_parts(model, stage) for stage in stages[:number]]
    codes = model.parts_named(["codes"])
    if trained & codes or not codes <= set().union(*earlier):
        return set()
    return trained.difference(*earlier)


def _codes(model, recipe, stage, kept, run, verbose, strategy):
    """The images' codes, up to where the stage needs them, or `None` where it trains them (or has none)."""
    if _trains_codes(model, stage) or not model.num_levels:
        return None
    # The chief computes and writes them, then the others read them.
    if not run.writes:
        strategies.wait(strategy)
    codes = cached_codes(model, kept, run.folder / "codes.npz", recipe["flip"], recipe["turns"], verbose)
    if run.writes:
        strategies.wait(strategy)
    if stage["crop"]:
        codes = codes[: max(int(name.rpartition("_")[2]) for name in _trained_parts(model, stage))]
    return codes


def _optimizer(stage, trains_codes):
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if stage["warmup"] else stage["learning_rate"],
        decay_steps=max(stage["steps"] - stage["warmup"], 1),
        alpha=0.01,
        warmup_target=stage["learning_rate"] if stage["warmup"] else None,
        warmup_steps=stage["warmup"],
    )
    ema = None if trains_codes else stage["ema"]
    return AveragingAdam(schedule, beta_2=0.99, use_ema=ema is not None, ema_momentum=ema or 0.0)


@keras.saving.register_keras_serializable(package="haim_tf")
class AveragingAdam(keras.optimizers.Adam):
    """Adam whose moving average of the weights warms up: it reaches back `1 / (1 - ema_momentum)` steps, but
    never more than about a tenth of the steps so far, as `tf.train.ExponentialMovingAverage` with
    `num_updates` does."""

    @property
    def ema_momentum(self) -> Tensor | float:
        if not self.built:
            return self._ema_momentum
        steps = ops.cast(self.iterations, "float32")
        return ops.minimum(self._ema_momentum, (1.0 + steps) / (10.0 + steps))

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self._ema_momentum = value

    def get_config(self) -> dict:
        return {**super().get_config(), "ema_momentum": self._ema_momentum}


class _Checkpoint(keras.callbacks.Callback):
    """At the end of each interval: held-out figures, a row of the log, the checkpoint, a progress line."""

    def __init__(self, run, recipe, stage, watched, verbose):
        super().__init__()
        self.run, self.recipe, self.stage, self.watched = run, recipe, stage, watched
        self.patient = "patience" in recipe["stages"][stage]
        self.interval, self.batch_size = recipe["interval"], recipe["stages"][stage]["batch_size"]
        self.steps = recipe["stages"][stage]["steps"]
        # On a terminal a bar moves within the interval; elsewhere one line an interval is enough.
        self.show_line, self.show_bar = verbose, verbose and progress.is_terminal()
        # Else Keras would wait for the figures after every call of the device.
        self.async_safe = not self.show_bar

    def on_epoch_begin(self, epoch, logs=None):
        self.started = self.shown = time.time()
        if self.show_bar:
            self.bar = progress.Bar(self.interval, "steps")

    def on_train_batch_end(self, batch, logs=None):
        # A figure read from an accelerator waits until it is known: not at every step.
        if self.show_bar and (time.time() - self.shown > BAR_SECONDS or batch + 1 == self.interval):
            self.shown = time.time()
            self.bar.add(batch + 1 - self.bar.done, loss=float(logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        if self.show_bar:
            self.bar.close()
        seconds = time.time() - self.started
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if self.watched is not None:
            logs.update(self.watched.figures(self.model))
        step = (epoch + 1) * self.interval
        row = {"stage": self.stage, "step": step, "seconds": round(seconds, 1), **logs}
        _check_finite(self.model, row)
        if self.patient and logs[SCORE] < self.run.best["score"]:
            self.run.save_best(self.model, self.stage, step, logs[SCORE])
        self.run.save(self.model, self.stage, step, row)
        if self.show_line:
            shown = {k: v for k, v in logs.items() if k.startswith(("loss_", "holdout", "perplexity"))}
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            rate = self.interval * self.batch_size / seconds
            place = f"stage {self.stage + 1} step {step}/{self.steps}"
            progress.tell(f"{place}  {rate:.0f} images/s  {text}")
        if _has_peaked(self.run, self.recipe, self.stage):
            self.model.stop_training = True


def _check_finite(model, row):
    """A ValueError where training has gone out of bounds: nothing of that is to be kept."""
    wrong = [name for name, value in row.items() if not math.isfinite(value)]
    wrong += [v.path for v in model.trainable_variables if not np.isfinite(ops.convert_to_numpy(v)).all()]
    if wrong:
        raise ValueError(
            f"training went out of bounds in stage {row['stage'] + 1}, by step {row['step']}: {wrong[0]} is "
            "not finite. The checkpoint before stays; a lower learning_rate, or more warmup, is wanted"
        )


def _save_pictures(model, images, run, stage, step):
    """Sheets of what the stage taught: reconstructions by every level's codes, and samples."""
    trained = _trained_parts(model, run.recipe["stages"][stage])
    originals = images.images[np.arange(min(16, len(images)))]
    rows = [originals]
    for level in filter(model.has_auxiliary, range(1, model.num_levels + 1)):
        rows.append(model.reconstruct(originals, level=level, decoder="auxiliary"))
    if len(rows) > 1:
        run.save_picture("reconstructions", np.concatenate(rows), len(originals), step)
    networks = set(model.parts_named(["decoders", "prior"]))
    seen = set().union(*(_trained_parts(model, s) for s in run.recipe["stages"][: stage + 1]))
    if trained & networks and networks <= seen:
        run.save_picture("samples", model.sample(64, seed=run.recipe["seed"]), 8, step)


def _metadata(run, recipe, images, model):
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
        "pretrained": known["pretrained"] if "from" in recipe else True,
        "dataset": known.get("dataset") or {"name": images.name},
        "training": {
            **known.get("training", {}),
            "steps": steps,
            "images_seen": [count * size for count, size in zip(steps, sizes, strict=True)],
            "hours": round(sum(row["seconds"] for row in run.rows) / 3600, 2),
            **drawn,
            "precision": recipe["precision"],
            "backend": keras.backend.backend(),
        },
    }
    if run.best is not None:
        metadata["training"]["kept"] = (
            f"the weights of step {run.best['step']}, the best of the held-out images"
        )
        first = next(row for row in run.rows if row["stage"] == run.best["stage"])
        count = min(recipe["holdout"], WATCHED)
        metadata["metrics"] = [
            {
                "name": f"bits/dim {when}",
                "value": round(value, 4),
                "split": "held out of training",
                "count": count,
            }
            for when, value in (("as loaded", first[SCORE]), ("after", run.best["score"]))
        ]
    return metadata
