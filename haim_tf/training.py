"""Training by a recipe: staged, logged, checkpointed, and resumable after being killed at any moment.

A recipe is a JSON file (or dict) that holds everything a training run needs but the data:

    {"model": {...},              arguments of HierarchicalModel
     "seed": 0, "batch_size": 32, "flip": true, "holdout": 1000, "interval": 250,
     "precision": "mixed_bfloat16", "ema": 0.999, "clip_norm": 1.0,
     "stages": [{"train": ["codes"], "steps": 3000, "learning_rate": 0.001, "warmup": 200}, ...],
     "variants": {"flat": {...}}} named sets of other values for the keys above, such as a baseline's

Each stage trains the named parts (see `HierarchicalModel.freeze`) with a fresh Adam, linear warm-up and
cosine decay, and ends with the moving average of its weights in place. `holdout` training images are kept
out and their bits/dim logged every `interval` steps. The output folder holds `recipe.json`, `metrics.csv`,
`checkpoint.npz` (replaced atomically), and at the end `preset/`, which `haim_tf.load` reads.
"""

import contextlib
import csv
import json
import os
import pathlib
import time

import keras
import numpy as np

from haim_tf import data as haim_data
from haim_tf.models import HierarchicalModel

DEFAULTS = {
    "seed": 0,
    "batch_size": 32,
    "flip": False,
    "holdout": 0,
    "interval": 250,
    "precision": "float32",
    "ema": None,
    "clip_norm": 1.0,
    "variants": {},
}
STAGE_DEFAULTS = {"train": None, "warmup": 0}


SMOKE_STEPS = 4


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
        source = _read_json(_find_recipe(source))
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
                "a stage has 'steps', 'learning_rate' and may have 'train' (part names; all by default) and "
                f"'warmup'; got {stage}"
            )
        stages.append({**STAGE_DEFAULTS, **stage})
    if smoke:
        stages = [{**stage, "steps": SMOKE_STEPS, "warmup": 0} for stage in stages]
        recipe.update(batch_size=8, holdout=8, interval=SMOKE_STEPS // 2)
    for stage in stages:
        if stage["steps"] % recipe["interval"]:
            raise ValueError(f"interval {recipe['interval']} must divide the steps of each stage, got {stage}")
    recipe["stages"] = stages
    return recipe


def train(recipe, source, output, split="train", resume=True, verbose=True):
    """Trains a model by a recipe, or goes on with a run that was interrupted.

    Args:
        recipe: as `read_recipe` returns.
        source, split: what `haim_tf.data.load` reads.
        output: the run's folder, made where absent.
        resume: whether a folder that holds an unfinished run may be gone on with.
        verbose: whether to report progress.

    Returns:
        The trained `HierarchicalModel` (float32).

    Raises:
        ValueError: a folder that holds something else, or the run of another recipe.
    """
    run = _Run(pathlib.Path(output), recipe)
    run.open(resume)
    images = haim_data.load(source, split, image_shape=tuple(recipe["model"]["image_shape"]))
    keras.utils.set_random_seed(recipe["seed"])
    model = HierarchicalModel(**recipe["model"], dtype=recipe["precision"])
    if recipe["holdout"] >= len(images):
        raise ValueError(f"holdout must be less than the {len(images)} images, got {recipe['holdout']}")
    kept, held = _split_off(images, recipe["holdout"])

    start = 0
    for number, stage in enumerate(recipe["stages"]):
        if number >= run.position["stage"]:
            _train_stage(model, recipe, number, start, kept, held, run, verbose)
        start += stage["steps"]
    trained = HierarchicalModel(**recipe["model"])
    trained.set_weights(model.get_weights())
    trained.class_names = images.class_names
    run.write_preset(trained, images)
    return trained


def _split_off(images, count):
    """`images` without the last `count`, and those."""
    kept = len(images) - count
    labels = images.labels

    def part(rows):
        return haim_data.ImageData(
            images.images[rows], None if labels is None else labels[rows], images.class_names, images.name
        )

    return (part(np.arange(kept)), part(np.arange(kept, len(images)))) if count else (images, None)


def _train_stage(model, recipe, number, first_step, kept, held, run, verbose):
    stage = recipe["stages"][number]
    model.unfreeze()
    if stage["train"] is not None:
        model.freeze(*(set(model.parts) - model.parts_named(stage["train"])))
    model.compile(_optimizer(recipe, stage), clip_norm=recipe["clip_norm"])
    model.optimizer.build(model.trainable_variables)
    done = run.position["step"] if run.position["stage"] == number else 0
    if run.position["stage"] == number:
        run.restore(model)
    interval = recipe["interval"]
    batches = haim_data.Batches(
        kept,
        recipe["batch_size"],
        flip=recipe["flip"],
        seed=recipe["seed"],
        start_step=first_step + done,
        labels=model.num_classes is not None,
    )
    if done < stage["steps"]:
        model.fit(
            batches,
            steps_per_epoch=interval,
            initial_epoch=done // interval,
            epochs=stage["steps"] // interval,
            callbacks=[_Checkpoint(run, number, interval, held, recipe["batch_size"], verbose)],
            verbose=0,
        )
    else:
        # Killed between its last step and here: what fit does last is still to be done.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    # The averaged weights are in place now; the next stage starts from them.
    run.save(model, number + 1, 0)


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
    """At the end of each interval: held-out bits/dim, a row of metrics.csv, the checkpoint, a progress line."""

    def __init__(self, run, stage, interval, held, batch_size, verbose):
        super().__init__()
        self.run, self.stage, self.interval = run, stage, interval
        self.held, self.batch_size, self.verbose = held, batch_size, verbose
        self.started = time.time()

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if self.held is not None:
            bits = self.model.bits_per_dim(self.held.images[:], self.held.labels, per_level=True)
            logs.update({f"holdout_bits_per_dim_{name}": float(value.mean()) for name, value in bits.items()})
        step = (epoch + 1) * self.interval
        seconds, self.started = time.time() - self.started, time.time()
        row = {"stage": self.stage, "step": step, "seconds": round(seconds, 1), **logs}
        self.run.save(self.model, self.stage, step, row)
        if self.verbose:
            shown = {k: v for k, v in logs.items() if k.startswith(("loss", "holdout", "bits", "perplexity"))}
            text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            rate = self.interval * self.batch_size / seconds
            print(f"stage {self.stage + 1} step {step}/{self.run.steps(self.stage)}  {rate:.0f} images/s  {text}", flush=True)


class _Run:
    """The output folder of a run: what is written there, and how a run is found again."""

    def __init__(self, folder, recipe):
        self.folder, self.recipe = folder, recipe
        self.position = {"stage": 0, "step": 0}
        self.rows = []
        self.state = None

    def steps(self, stage):
        return self.recipe["stages"][stage]["steps"]

    def open(self, resume):
        """Makes the folder, or reads the last checkpoint of the run in it."""
        recipe_file = self.folder / "recipe.json"
        if self.folder.exists() and any(self.folder.iterdir()):
            if not recipe_file.exists():
                raise ValueError(f"{self.folder} exists and is not a training run: name a new folder")
            if _read_json(recipe_file) != json.loads(json.dumps(self.recipe)):
                raise ValueError(f"{self.folder} holds the run of another recipe: name a new folder")
            if not resume:
                raise ValueError(f"{self.folder} holds a run already: name a new folder, or resume it")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(recipe_file, lambda path: path.write_text(json.dumps(self.recipe, indent=1) + "\n"))
        checkpoint = self.folder / "checkpoint.npz"
        if checkpoint.exists():
            with np.load(checkpoint) as saved:
                self.state = {name: saved[name] for name in saved.files}
            meta = json.loads(str(self.state.pop("meta")))
            self.position, self.rows = meta["position"], meta["rows"]

    def save(self, model, stage, step, row=None):
        """Writes model, optimizer, random state, position and log in one file, then the log as CSV."""
        self.position = {"stage": stage, "step": step}
        if row:
            self.rows.append(row)
        meta = json.dumps({"position": self.position, "rows": self.rows})
        state = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(model).items()}

        def write(path):
            with open(path, "wb") as file:
                np.savez(file, meta=meta, **state)

        _write_atomically(self.folder / "checkpoint.npz", write)
        self.state = state
        _write_atomically(self.folder / "metrics.csv", self._write_csv)

    def _write_csv(self, path):
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def restore(self, model):
        """Puts the last checkpoint's state back; a new stage's optimizer keeps its fresh state."""
        if self.state is None:
            return
        for name, variable in _variables(model).items():
            if name.startswith("model") or self.position["step"]:
                if name not in self.state or self.state[name].shape != tuple(variable.shape):
                    raise ValueError(f"{self.folder / 'checkpoint.npz'} does not fit the model at {name}")
                variable.assign(self.state[name])

    def write_preset(self, model, images):
        """Writes the trained model as `preset/`, with how it was trained."""
        from haim_tf import presets

        steps = sum(stage["steps"] for stage in self.recipe["stages"])
        metadata = {
            "pretrained": True,
            "dataset": {"name": images.name},
            "class_names": images.class_names,
            "training": {
                "steps": steps,
                "images_seen": steps * self.recipe["batch_size"],
                "hours": round(sum(row["seconds"] for row in self.rows) / 3600, 2),
                "backend": keras.backend.backend(),
            },
        }
        presets.save_to_preset(model, self.folder / "preset", metadata=metadata, overwrite=True)


def _variables(model):
    """Everything that a checkpoint holds, by a name that says where it belongs."""
    variables = {f"model{i}": v for i, v in enumerate(model.variables)}
    return {**variables, **{f"optimizer{i}": v for i, v in enumerate(model.optimizer.variables)}}


def _write_atomically(path, write):
    """Calls `write` on a temporary file beside `path`, then renames it, so that `path` is never half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _read_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None


def _find_recipe(source):
    path = pathlib.Path(source)
    if path.is_file():
        return path
    from importlib import resources

    entry = pathlib.Path(str(resources.files("haim_tf.zoo"))) / str(source) / "recipe.json"
    if not entry.is_file():
        raise FileNotFoundError(f"no recipe: {source!r} is neither a file nor a zoo entry with a recipe.json")
    return entry
