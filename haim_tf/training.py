"""Training by a recipe: staged, logged, checkpointed, and resumable after being killed at any moment.

A recipe is a JSON file (or dict) that holds everything a training run needs but the data:

    {"model": {...},              arguments of HierarchicalModel
     "seed": 0, "batch_size": 32, "flip": true, "holdout": 1000, "interval": 250,
     "precision": "mixed_bfloat16", "ema": 0.99, "clip_norm": 1.0, "rare_codes_below": 0.1,
     "stages": [{"train": ["codes"], "steps": 3000, "learning_rate": 0.001, "warmup": 200}, ...],
     "variants": {"flat": {...}}} named sets of other values for the keys above, such as a baseline's

Each stage trains the named parts (see `HierarchicalModel.freeze`) with a fresh Adam, linear warm-up and
cosine decay, and ends with the moving average of its weights in place, which reaches back about 1 / (1 -
`ema`) steps: let that be a small part of the stage, or early weights spoil late ones. Stages that leave the
codes as they are read them from `codes.npz`, which the first of them writes; networks that are trained
first then start from the codebooks (see `HierarchicalModel.embed_by_codebooks`). With `"crop": 32` a stage
that trains main decoders learns on random squares of 32 pixels, aligned to the codes; the decoders should
have no attention. `holdout` training images are kept out and their bits/dim logged every `interval` steps.
At the end codes rarer than `rare_codes_below` of uniform usage are dropped (see
`models.without_rare_codes`; by default none is). The output folder holds `recipe.json`, `metrics.csv`,
`checkpoint.npz` (replaced atomically) and at the end `preset/`, which `haim_tf.load` reads.
"""

import pathlib
import sys
import time

import keras
import numpy as np

from haim_tf import data as haim_data
from haim_tf import presets, replicas
from haim_tf.code_cache import cached_codes
from haim_tf.files import read_json
from haim_tf.models import HierarchicalModel, without_rare_codes
from haim_tf.run_folder import RunFolder

DEFAULTS = {
    "seed": 0,
    "batch_size": 32,
    "flip": False,
    "holdout": 0,
    "interval": 250,
    "precision": "float32",
    "ema": None,
    "clip_norm": 1.0,
    "rare_codes_below": 0.0,
    "variants": {},
}
STAGE_DEFAULTS = {"train": None, "warmup": 0, "crop": None}

SMOKE_STEPS = 4
# How many training images, evenly spaced, tell which codes are rare.
RARE_CODES_IMAGES = 10_000


def read_recipe(source, variant=None, smoke=False):
    """A recipe with its defaults filled in.

    Args:
        source: a dict, the path of a JSON file, or the name of a zoo entry that has a `recipe.json`.
        variant: name of one of the recipe's `variants`, or `None` for the recipe itself.
        smoke: whether to cut every stage down to a few steps of a few images, to try the whole path.

    Raises:
        ValueError, FileNotFoundError: not a recipe, unknown or missing keys.
    """
    if not isinstance(source, dict):
        source = read_json(_find_recipe(source))
    recipe = {**DEFAULTS, **source}
    variants = recipe.pop("variants")
    if variant is not None:
        if variant not in variants:
            raise ValueError(f"unknown variant {variant!r}; this recipe has {sorted(variants)}")
        recipe.update(variants[variant])
    unknown = set(recipe) - set(DEFAULTS) - {"model", "stages"}
    if unknown or "model" not in recipe or not recipe.get("stages"):
        raise ValueError(
            f"a recipe has 'model', 'stages' and may have {sorted(DEFAULTS)}; got keys {sorted(source)}"
        )
    stages = []
    for stage in recipe["stages"]:
        unknown = set(stage) - set(STAGE_DEFAULTS) - {"steps", "learning_rate"}
        if unknown or "steps" not in stage or "learning_rate" not in stage:
            raise ValueError(
                "a stage has 'steps', 'learning_rate' and may have 'train' (part names; all by default), "
                f"'warmup' and 'crop'; got {stage}"
            )
        stages.append({**STAGE_DEFAULTS, **stage})
    if smoke:
        stages = [{**stage, "steps": SMOKE_STEPS, "warmup": 0} for stage in stages]
        recipe.update(batch_size=8, holdout=8, interval=SMOKE_STEPS // 2)
    for stage in stages:
        if stage["steps"] < 1 or stage["steps"] % recipe["interval"]:
            raise ValueError(
                "the steps of each stage must be a positive multiple of "
                f"interval {recipe['interval']}, got {stage}"
            )
    recipe["stages"] = stages
    return recipe


def train(recipe, source, output, split="train", resume=True, verbose=True, strategy="none"):
    """Trains a model by a recipe, or goes on with a run that was interrupted.

    Args:
        recipe: as `read_recipe` returns.
        source, split: what `haim_tf.data.load` reads.
        output: the run's folder, made where absent.
        resume: whether a folder that holds an unfinished run may be gone on with.
        verbose: whether to report progress.
        strategy: "none"; "mirrored", all devices of this machine; or "multi_worker", all machines that
            `TF_CONFIG` names (see `docs/distributed.md`). The recipe's batch is shared by the devices.

    Returns:
        The trained `HierarchicalModel` (float32).

    Raises:
        ValueError: a folder that holds something else, or the run of another recipe; a strategy that cannot
            be had here.
    """
    strategy = replicas.strategy_named(strategy)
    chief = replicas.is_chief(strategy)
    verbose = verbose and chief
    run = RunFolder(output, recipe, resume, writes=chief)
    replicas.wait(strategy, run.position.values())
    images = haim_data.load(source, split, image_shape=tuple(recipe["model"]["image_shape"]))
    keras.utils.set_random_seed(recipe["seed"])
    with replicas.scope(strategy):
        model = HierarchicalModel(**recipe["model"], dtype=recipe["precision"])
    kept, held = images.split_off(recipe["holdout"]) if recipe["holdout"] else (images, None)

    first_step = 0
    for number, stage in enumerate(recipe["stages"]):
        if number >= run.position["stage"]:
            _train_stage(model, recipe, number, first_step, kept, held, run, verbose, strategy)
        first_step += stage["steps"]
    if run.position["stage"] == len(recipe["stages"]):
        run.restore(model)
    trained = HierarchicalModel(**recipe["model"])
    trained.set_weights(model.get_weights())
    if recipe["rare_codes_below"]:
        typical = kept.images[np.linspace(0, len(kept) - 1, min(len(kept), RARE_CODES_IMAGES)).astype(int)]
        trained = without_rare_codes(trained, typical, recipe["rare_codes_below"])
    if chief:
        _write_preset(run, recipe, trained, images)
    replicas.wait(strategy)  # A worker that left would take the chief with it.
    return trained


def _train_stage(model, recipe, number, first_step, kept, held, run, verbose, strategy):
    stage = recipe["stages"][number]
    model.unfreeze()
    if stage["train"] is not None:
        model.freeze(*(set(model.parts) - model.parts_named(stage["train"])))
    with replicas.scope(strategy):
        model.compile(_optimizer(recipe, stage), clip_norm=recipe["clip_norm"])
        model.optimizer.build(model.trainable_variables)
    done = run.position["step"] if run.position["stage"] == number else 0
    if run.position["stage"] == number:
        run.restore(model)
    if not done:
        model.embed_by_codebooks(*_fresh_networks(model, recipe, number))
    interval = recipe["interval"]
    batches = haim_data.Batches(
        kept,
        recipe["batch_size"],
        flip=recipe["flip"],
        seed=recipe["seed"],
        start_step=first_step + done,
        labels=model.num_classes is not None,
        codes=_codes(model, recipe, stage, kept, run, verbose, strategy),
        crop=stage["crop"],
    )
    if done < stage["steps"]:
        steps = {
            "steps_per_epoch": interval,
            "initial_epoch": done // interval,
            "epochs": stage["steps"] // interval,
            "callbacks": [_Checkpoint(run, recipe, number, held, verbose)],
        }
        if strategy is None:
            model.fit(batches, shuffle=False, verbose=0, **steps)
        else:
            replicas.fit(model, strategy, batches, **steps)
    else:
        # Killed between its last step and here: what fit does last is still to be done.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    # The averaged weights are in place now; the next stage starts from them.
    if held is not None and verbose:
        text = "  ".join(f"{name} {value:.4g}" for name, value in _held_out(model, held).items())
        print(f"stage {number + 1} done, weights averaged  {text}", flush=True)
    run.save(model, number + 1, 0)
    if run.writes:
        _save_pictures(model, kept if held is None else held, run, number, first_step + stage["steps"])


def _trained_parts(model, stage):
    return model.parts_named(stage["train"] or model.parts)


def _fresh_networks(model, recipe, number):
    """The parts that a stage is the first to train, where it leaves the codes as earlier stages made them."""
    trained = _trained_parts(model, recipe["stages"][number])
    earlier = [_trained_parts(model, stage) for stage in recipe["stages"][:number]]
    codes = model.parts_named(["codes"])
    if trained & codes or not codes <= set().union(*earlier):
        return set()
    return trained.difference(*earlier)


def _codes(model, recipe, stage, kept, run, verbose, strategy):
    """The images' codes, up to where the stage needs them, or `None` where it trains them (or has none)."""
    trained = _trained_parts(model, stage)
    changing = trained & model.parts_named(["codes"])
    if stage["crop"] and (changing or ("prior" in trained and model.num_levels)):
        raise ValueError(f"crop is for stages that train main decoders (or a flat model) only, got {stage}")
    if changing or not model.num_levels:
        return None
    # The chief computes and writes them, then the others read them.
    if not run.writes:
        replicas.wait(strategy)
    codes = cached_codes(model, kept, run.folder / "codes.npz", recipe["flip"], verbose)
    if run.writes:
        replicas.wait(strategy)
    if stage["crop"]:
        codes = codes[: max(int(name.rpartition("_")[2]) for name in trained)]
    return codes


def _optimizer(recipe, stage):
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if stage["warmup"] else stage["learning_rate"],
        decay_steps=max(stage["steps"] - stage["warmup"], 1),
        alpha=0.01,
        warmup_target=stage["learning_rate"] if stage["warmup"] else None,
        warmup_steps=stage["warmup"],
    )
    ema = recipe["ema"]
    return keras.optimizers.Adam(
        schedule, beta_2=0.99, use_ema=ema is not None, ema_momentum=ema if ema is not None else 0.99
    )


class _Checkpoint(keras.callbacks.Callback):
    """At the end of each interval: held-out bits/dim, a row of the log, the checkpoint, a progress line."""

    def __init__(self, run, recipe, stage, held, verbose):
        super().__init__()
        self.run, self.stage, self.held = run, stage, held
        self.interval, self.batch_size = recipe["interval"], recipe["batch_size"]
        self.steps = recipe["stages"][stage]["steps"]
        # On a terminal a bar moves within the interval; elsewhere one line an interval is enough.
        self.show_line, self.show_bar = verbose, verbose and sys.stdout.isatty()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.time()
        if self.show_bar:
            self.bar = keras.utils.Progbar(self.interval)

    def on_train_batch_end(self, batch, logs=None):
        if self.show_bar:
            self.bar.update(batch + 1, [("loss", float(logs["loss"]))], finalize=False)

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.time() - self.started
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if self.held is not None and self.run.writes:
            logs.update(_held_out(self.model, self.held))
        step = (epoch + 1) * self.interval
        row = {"stage": self.stage, "step": step, "seconds": round(seconds, 1), **logs}
        self.run.save(self.model, self.stage, step, row)
        if self.show_line:
            shown = {k: v for k, v in logs.items() if k.startswith(("loss_", "holdout", "perplexity"))}
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            rate = self.interval * self.batch_size / seconds
            place = f"stage {self.stage + 1} step {step}/{self.steps}"
            print(f"{place}  {rate:.0f} images/s  {text}", flush=True)


def _held_out(model, held):
    """Bits/dim of the images that are kept out of training, by what they are called in the log."""
    bits = model.bits_per_dim(held.images[:], held.labels, per_level=True)
    return {f"holdout_bits_per_dim_{name}": float(value.mean()) for name, value in bits.items()}


def _save_pictures(model, images, run, stage, step):
    """Sheets of what the stage taught: reconstructions by every level's codes, and samples."""
    trained = _trained_parts(model, run.recipe["stages"][stage])
    originals = images.images[np.arange(min(16, len(images)))]
    rows = [originals]
    for level in filter(model.has_auxiliary, range(1, model.num_levels + 1)):
        rows.append(model.reconstruct(originals, level=level, decoder="auxiliary"))
    if len(rows) > 1:
        run.save_picture("reconstructions", np.concatenate(rows), len(originals), step)
    if "prior" in trained and keras.backend.backend() == "tensorflow":
        run.save_picture("samples", model.sample(64, seed=run.recipe["seed"]), 8, step)


def _write_preset(run, recipe, model, images):
    """Writes the trained model as `preset/`, with how it was trained."""
    steps = [stage["steps"] for stage in recipe["stages"]]
    metadata = {
        "pretrained": True,
        "dataset": {"name": images.name},
        "class_names": images.class_names,
        "training": {
            "steps": steps,
            "images_seen": [n * recipe["batch_size"] for n in steps],
            "hours": round(sum(row["seconds"] for row in run.rows) / 3600, 2),
            "precision": recipe["precision"],
            "backend": keras.backend.backend(),
        },
    }
    presets.save_to_preset(model, run.folder / "preset", metadata=metadata, overwrite=True)


def _find_recipe(source):
    path = pathlib.Path(source)
    if path.is_file():
        return path
    from importlib import resources

    entry = pathlib.Path(str(resources.files("haim_tf.zoo"))) / str(source) / "recipe.json"
    if not entry.is_file():
        raise FileNotFoundError(f"no recipe: {source!r} is neither a file nor a zoo entry with a recipe.json")
    return entry
