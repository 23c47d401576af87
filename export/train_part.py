"""Trains one part of a recipe's model on one GPU or TPU under JAX, with its data kept on the device.

Stages that learn on finished codes do not wait for one another: each may have a process, a GPU or a machine
of its own. Batches, losses, clipping, optimizer and averages are those of `haim_tf train`.

    export KERAS_BACKEND=jax
    python export/train_part.py --config=RECIPE --data=DATA --stage=1 --output=codes.npz
    for stage in 2 3 4; do
        python export/train_part.py --config=RECIPE --data=DATA --codes=codes.npz --cache=cache.npz \
            --stage=$stage --output=stage_$stage.npz &
    done; wait
    python export/train_part.py --config=RECIPE --data=DATA --codes=codes.npz \
        --join=stage_2.npz,stage_3.npz,stage_4.npz --output=RUN

The last makes a finished run of them, as `haim_tf train` leaves it. With --seconds a stage that would take
longer ends by then, its learning rate brought down along the time; the run's recipe.json has the steps that
were made.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import queue
import sys
import threading
import time
import zipfile

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("config", None, "A recipe: a JSON file or the name of a zoo entry.", required=True)
flags.DEFINE_string("variant", None, "One of the recipe's variants.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "train", "Split of that data.")
flags.DEFINE_string(
    "codes", None, "What has the codes: a preset folder, or the output of the stage of codes."
)
flags.DEFINE_string("cache", None, "An .npz file for the images' codes, which other stages may share.")
flags.DEFINE_integer("stage", None, "Which of the recipe's stages, from 1.", lower_bound=1)
flags.DEFINE_list("join", None, "Outputs of all stages but that of the codes: makes a run of them.")
flags.DEFINE_float(
    "seconds", None, "At most how long, from the end of the first program on.", lower_bound=0.0
)
flags.DEFINE_integer("chunk", 50, "Steps of one program.", lower_bound=1)
flags.DEFINE_string("output", None, "An .npz file; with --join the folder of the run.", required=True)

# Between two looks at the held-out images, at each of which the output is written.
SAVE_SECONDS = 60


def main(argv):
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        if (FLAGS.stage is None) == (FLAGS.join is None):
            raise ValueError("one of --stage and --join must be given")
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        if keras.backend.backend() != "jax":
            raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
        join() if FLAGS.join else train()
    except (ValueError, OSError) as error:
        print(f"train_part: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def read():
    """The recipe with its model's configuration as the codes have it, and the images."""
    from haim_tf import data
    from haim_tf.training.recipe import read_recipe, with_classes_of

    recipe = read_recipe(FLAGS.config, variant=FLAGS.variant)
    images = data.load(FLAGS.data, FLAGS.split, image_shape=recipe["model"]["image_shape"])
    recipe = with_classes_of(recipe, images)
    if FLAGS.codes:
        _, sizes = code_weights()
        for level, size in zip(recipe["model"]["levels"], sizes, strict=True):
            level["codebook_size"] = size  # Rare codes may have been dropped.
    return recipe, images


@functools.cache
def code_weights():
    """Weights of the encoders, codebooks and auxiliary decoders by part, and the codebooks' sizes."""

    from haim_tf import presets

    if os.path.isdir(FLAGS.codes):
        model = presets.load(FLAGS.codes)
        parts = {name: weights_of(model, name) for name in model.parts_named(["codes"])}
        return parts, model.codebook_sizes
    with output_of(FLAGS.codes) as (meta, saved):
        parts = {}
        for name, count in meta["parts"].items():
            parts[name] = [saved[f"{name}/{i}"] for i in range(count)]
        return parts, meta["sizes"]


@contextlib.contextmanager
def output_of(path):
    """What a stage's output says of itself, and its arrays; a ValueError where it is something else."""
    try:
        with np.load(path) as saved:
            yield json.loads(str(saved["meta"])), saved
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be what a stage has written, and whole: {error}") from error


def codes_digest():
    """By which parts that learned on the same codes know one another."""
    if not FLAGS.codes:
        return None
    digest = hashlib.sha256()
    for name, weights in sorted(code_weights()[0].items()):
        for weight in weights:
            digest.update(name.encode() + np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def weights_of(model, part):
    return [np.asarray(weight) for weight in model.parts[part].weights]


def build(recipe, dtype):
    """A fresh model with the codes that there are."""
    import keras

    from haim_tf.models import HierarchicalModel

    keras.utils.set_random_seed(recipe["seed"])
    model = HierarchicalModel(**recipe["model"], dtype=dtype)
    if FLAGS.codes and model.num_levels:
        for name, weights in code_weights()[0].items():
            for variable, value in zip(model.parts[name].weights, weights, strict=True):
                variable.assign(value)
    return model


def train():
    import fcntl

    from haim_tf import files, progress
    from haim_tf.training.recipe import check_recipe

    output = files.check_new_file(FLAGS.output)
    recipe, images = read()
    if FLAGS.stage > len(recipe["stages"]):
        raise ValueError(
            f"--stage must be one of the recipe's {len(recipe['stages'])} stages, got {FLAGS.stage}"
        )
    total = recipe["stages"][FLAGS.stage - 1]["steps"]
    if total % FLAGS.chunk:
        raise ValueError(f"--chunk must divide the stage's {total} steps, got {FLAGS.chunk}")
    check_recipe(recipe, build(recipe, "float32"), images)
    kept, held = images.split_off(recipe["holdout"]) if recipe["holdout"] else (images, images)
    codes = None
    if FLAGS.codes and recipe["model"]["levels"]:
        from haim_tf.training.code_cache import cached_codes

        if not FLAGS.cache:
            raise ValueError("--cache must be given with --codes: a file to keep the images' codes in")
        with open(f"{FLAGS.cache}.lock", "ab") as lock:  # The first process writes them, the others read.
            fcntl.flock(lock, fcntl.LOCK_EX)
            model = build(recipe, "float32")
            codes = cached_codes(model, kept, FLAGS.cache, recipe["flip"], recipe["turns"])
    part = Part(recipe, kept, held, codes)
    progress.tell(f"stage {FLAGS.stage}: {part.name}, {part.num_parameters:,} parameters")
    part.train(output)


class Part:
    """What one stage trains, as a pure function of its state."""

    def __init__(self, recipe, kept, held, codes):
        import jax
        import jax.numpy as jnp

        from haim_tf.data import Batches
        from haim_tf.data.batches import num_symmetries, transformed
        from haim_tf.training.held_out import HeldOut
        from haim_tf.training.optimizer import stage_optimizer
        from haim_tf.training.stage_parts import fresh_networks, trained_parts, trains_codes

        self.recipe, self.kept, self.stage = recipe, kept, recipe["stages"][FLAGS.stage - 1]
        self.model = model = build(recipe, recipe["precision"])
        self.trained = sorted(trained_parts(model, self.stage))
        self.makes_codes = trains_codes(model, self.stage)
        if not self.makes_codes and (len(self.trained) > 1 or (model.num_levels and codes is None)):
            raise ValueError(
                "a stage must train codes, or one network on the codes that --codes has, got "
                f"{', '.join(self.trained)}"
            )
        if self.stage.get("patience"):
            raise ValueError(f"a stage must be without patience here, got {self.stage['patience']}")
        self.name = "codes" if self.makes_codes else self.trained[0]
        model.freeze(*(set(model.parts) - set(self.trained)))
        if codes is not None:
            model.embed_by_codebooks(*fresh_networks(model, recipe, FLAGS.stage - 1))
        planned = stage_optimizer(self.stage, self.makes_codes)
        # Its schedule, of which --seconds may leave something out, gives each step its rate.
        self.schedule = jax.vmap(planned._learning_rate)
        given = {**planned.get_config(), "learning_rate": self.stage["learning_rate"]}
        self.optimizer = type(planned).from_config(given)
        model.compile(self.optimizer, clip_norm=recipe["clip_norm"])
        self.optimizer.build(model.trainable_variables)
        places = {id(v): i for i, v in enumerate(self.optimizer.variables)}
        self.rate_at = places[id(self.optimizer._learning_rate)]
        averages = self.optimizer._model_variables_moving_average if self.optimizer.use_ema else ()
        self.averages_at = [places[id(v)] for v in averages]
        self.num_parameters = sum(model.parts[name].count_params() for name in self.trained)

        crop = self.stage["crop"]
        if crop and codes is not None:
            codes = codes[: int(self.name.rpartition("_")[2])]
        self.batches = Batches(
            kept,
            self.stage["batch_size"],
            flip=recipe["flip"],
            turns=recipe["turns"],
            balance=recipe["balance"],
            seed=recipe["seed"],
            start_step=sum(stage["steps"] for stage in recipe["stages"][: FLAGS.stage - 1]),
            labels=model.num_classes is not None,
            codes=codes,
            crop=crop,
        )
        height, width, channels = model.image_shape
        self.side = (crop, crop) if crop else (height, width)
        places = np.arange(height * width).reshape(1, height, width)
        count = num_symmetries(recipe["flip"], recipe["turns"])
        turned = [transformed(places, number, recipe["flip"]).reshape(-1) for number in range(count)]
        # Networks on codes need no images: an empty one stands for their shape.
        self.reads_pixels = self.makes_codes or not model.num_levels or self.name == "decoder_1"
        self.data = {
            "images": jnp.asarray(kept.images[:] if self.reads_pixels else kept.images[:1]),
            "source": jnp.asarray(np.stack(turned).astype("int32")),
            "codes": None if codes is None else [jnp.asarray(level) for level in codes],
            "labels": None if model.num_classes is None else jnp.asarray(kept.labels.astype("int32")),
        }
        self.data["images"] = self.data["images"].reshape(-1, height * width, channels)
        self.watched = HeldOut(model, held, set(self.trained))
        self.program = jax.jit(self._program, donate_argnums=0)

    def plan(self, step):
        """Which images, symmetries and corners the batches of the next chunk have, int32 (chunk, B, ...)."""
        drawn = [self.batches.drawn(step + i) for i in range(FLAGS.chunk)]
        image, symmetry, corner = zip(*drawn, strict=True)
        plan = {"image": image, "symmetry": symmetry}
        if self.batches.crop:
            plan["corner"] = corner
        return {name: np.stack(values).astype("int32") for name, values in plan.items()}

    def _batch(self, data, plan):
        import jax.numpy as jnp

        image, symmetry = plan["image"], plan["symmetry"]
        corner = plan.get("corner", jnp.zeros((len(image), 2), "int32"))
        height, width = self.side
        if self.reads_pixels:
            rows = corner[:, :1] + jnp.arange(height)
            columns = corner[:, 1:] + jnp.arange(width)
            places = rows[:, :, None] * self.model.image_shape[1] + columns[:, None, :]
            source = data["source"][symmetry[:, None, None], places]
            images = data["images"][image[:, None, None], source]
        else:
            images = jnp.zeros((len(image), *self.model.image_shape), "uint8")
        batch = {"images": images}
        if data["codes"] is not None:
            batch["codes"] = tuple(codes[symmetry, image] for codes in data["codes"])
            if self.batches.crop:
                batch["corner"] = corner
        if data["labels"] is not None:
            batch["labels"] = data["labels"][image]
        return batch

    def _program(self, state, data, plan, rates):
        import jax

        from haim_tf.models import steps

        *state, metrics = state

        def step(state, now):
            trainable, others, optimizer = state
            optimizer = [now["rate"] if i == self.rate_at else x for i, x in enumerate(optimizer)]
            batch = self._batch(data, now)
            # Metrics are of one step: they begin anew.
            logs, state = steps.jax_step(self.model, (trainable, others, optimizer, metrics), batch)
            return state[:3], logs["loss"]

        state, losses = jax.lax.scan(step, tuple(state), {**plan, "rate": rates})
        return (*state, metrics), losses

    def figures(self, trainable, others):
        """Held-out figures as `haim_tf train` logs them, of the model with these values."""
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        for variable, value in zip(variables, [*trainable, *others], strict=True):
            variable.assign(np.asarray(value))
        return self.watched.figures(self.model)

    def train(self, output):
        import jax.numpy as jnp

        from haim_tf import progress

        model, stage = self.model, self.stage
        variables = model.trainable_variables, model.non_trainable_variables
        variables += self.optimizer.variables, model.metrics_variables
        state = tuple([jnp.asarray(np.asarray(v.value)) for v in group] for group in variables)
        total = stage["steps"]
        plans, rows, done, begun = queue.Queue(4), [], 0, None

        def draw():
            for step in range(0, total, FLAGS.chunk):
                plans.put(self.plan(step))

        threading.Thread(target=draw, daemon=True).start()
        while done < total:
            spent = (time.time() - begun) / FLAGS.seconds if FLAGS.seconds and begun else 0.0
            rates = self.rates(done + np.arange(FLAGS.chunk), min(spent, 1.0))
            started = time.time()
            state, losses = self.program(state, self.data, plans.get(), rates)
            loss = float(np.asarray(losses).mean())
            if not math.isfinite(loss):
                raise ValueError(
                    f"training went out of bounds by step {done}: a lower learning_rate is wanted"
                )
            seconds, done = time.time() - started, done + FLAGS.chunk
            # The first program was compiled on the way.
            late = FLAGS.seconds and begun and time.time() - begun + seconds > FLAGS.seconds
            if begun is None:
                begun = looked = time.time()
            rows.append({"stage": FLAGS.stage - 1, "step": done, "seconds": round(seconds, 2), "loss": loss})
            if late or done >= total or time.time() - looked > SAVE_SECONDS:
                looked = time.time()
                rows[-1].update(self.save(output, state, rows, done, bool(late or done >= total)))
                text = "  ".join(
                    f"{name} {x:.5g}" for name, x in rows[-1].items() if name.startswith("holdout")
                )
                rate = FLAGS.chunk * stage["batch_size"] / seconds
                progress.tell(f"step {done}/{total}  {rate:.0f} images/s  loss {loss:.4g}  {text}")
            if late:
                break

    def rates(self, steps, spent):
        """Learning rates of these steps: the stage's own, or those of later steps where more of the time is
        spent than of the steps."""
        warm_up, total = self.stage["warmup"], self.stage["steps"]
        later = np.maximum(steps, warm_up + spent * (total - warm_up))
        return self.schedule(np.where(steps < warm_up, steps, later).astype("float32"))

    def save(self, output, state, rows, done, final):
        """Writes the better of the averaged and the last weights; returns the held-out figures."""
        import jax

        from haim_tf.files import write_arrays

        candidates = [state[0]]
        if self.averages_at:
            candidates.append([state[2][i] for i in self.averages_at])
        found = [self.figures(weights, state[1]) for weights in candidates]
        best = min(range(len(found)), key=lambda i: sum(found[i].values()))
        if self.makes_codes:
            if final:
                self.save_codes(output, rows, done)
            return found[0]
        meta = {
            "part": self.name,
            "stage": FLAGS.stage,
            "steps": done,
            "batch_size": self.stage["batch_size"],
        }
        meta |= {"rows": rows, "device": jax.devices()[0].device_kind, "final": final}
        meta["codes"] = codes_digest()
        weights = {f"w{i}": np.asarray(x) for i, x in enumerate(candidates[best])}
        write_arrays(output, {"meta": np.array(json.dumps(meta)), **weights})
        return found[best]

    def save_codes(self, output, rows, done):
        """Writes the codes, rare ones dropped where the recipe says so."""
        import jax

        from haim_tf.files import write_arrays
        from haim_tf.training.stages import prune

        model = self.model  # Which has the state's values, for the figures.
        if self.recipe["rare_codes_below"]:
            model = prune(model, self.recipe, self.kept)
        parts = {name: weights_of(model, name) for name in model.parts_named(["codes"])}
        meta = {"part": "codes", "stage": FLAGS.stage, "steps": done, "batch_size": self.stage["batch_size"]}
        meta |= {"rows": rows, "device": jax.devices()[0].device_kind, "final": True}
        meta |= {
            "sizes": model.codebook_sizes,
            "parts": {name: len(weights) for name, weights in parts.items()},
        }
        arrays = {f"{name}/{i}": x for name, weights in parts.items() for i, x in enumerate(weights)}
        write_arrays(output, {"meta": np.array(json.dumps(meta)), **arrays})


def join():
    """Puts parts into a run folder, finished but for its preset, and has `train` write that."""

    from haim_tf import training
    from haim_tf.training.recipe import check_recipe
    from haim_tf.training.whole_run import source_name

    recipe, images = read()
    if recipe["model"]["levels"] and not FLAGS.codes:
        raise ValueError("--codes must be given with --join: the codes that the parts have learned on")
    rows, found = [], {}
    for path in [FLAGS.codes] * (not os.path.isdir(FLAGS.codes or ".")) + FLAGS.join:
        with output_of(path) as (meta, saved):
            if meta["part"] != "codes":
                found[meta["part"]] = [saved[f"w{i}"] for i in range(len(saved.files) - 1)]
        if not meta["final"]:
            raise ValueError(f"{path} is of a stage that has not come to its end")
        if meta["part"] != "codes" and meta.get("codes") != codes_digest():
            raise ValueError(f"{path} has learned on other codes than those of {FLAGS.codes}")
        stage = recipe["stages"][meta["stage"] - 1]
        stage["steps"] = meta["steps"]
        stage["warmup"] = min(stage["warmup"], meta["steps"])
        rows += meta["rows"]
    # A stage that ran out of time has other steps.
    recipe["interval"] = math.gcd(recipe["interval"], *(stage["steps"] for stage in recipe["stages"]))
    model = build(recipe, "float32")
    missing = set(model.parts) - set(found) - model.parts_named(["codes"])
    if missing or set(found) - set(model.parts):
        raise ValueError(
            f"--join must have all networks of the model, {', '.join(model.parts)}; got {sorted(found)}"
        )
    for part, weights in found.items():
        for variable, value in zip(model.parts[part].trainable_variables, weights, strict=True):
            variable.assign(value)
    check_recipe(recipe, model, images)
    known = {"source": source_name(FLAGS.data), "split": FLAGS.split, **images.fingerprint()}
    with training.RunFolder(FLAGS.output, recipe, data=known) as run:
        run.rows = sorted(rows, key=lambda row: (row["stage"], row["step"]))
        run.save(model, len(recipe["stages"]), 0)
    training.train(recipe, FLAGS.data, FLAGS.output, split=FLAGS.split)


if __name__ == "__main__":
    app.run(main)
