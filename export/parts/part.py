"""One stage that is trained under JAX, its data kept on the device, many steps a program."""

import math
import queue
import threading
import time

import numpy as np

from parts.outputs import build, digest, weights_of, write_output

# Between two looks at the held-out images, at each of which the output is written.
SAVE_SECONDS = 60


class Part:
    """What one stage trains, as a pure function of its state.

    Args:
        recipe: as `read_recipe` gives it, its model's configuration as the codes have it.
        number: of the stage, from 1.
        kept, held: the `ImageData` to learn and to watch the training by; `held` may be `None`.
        path: of the codes, a preset folder or the output of the stage of codes; `None`: there are none yet.
        codes: those of the images in `kept`, as `cached_codes` gives them, or `None`.
        chunk: steps of one program.
        seconds: at most how long to train, or `None`.
    """

    def __init__(self, recipe, number, kept, held, path, codes, chunk, seconds):
        import jax
        import jax.numpy as jnp

        from haim_tf.data import Batches
        from haim_tf.data.batches import num_symmetries, transformed
        from haim_tf.training.held_out import HeldOut
        from haim_tf.training.optimizer import stage_optimizer
        from haim_tf.training.stage_parts import fresh_networks, trained_parts, trains_codes

        self.recipe, self.kept, self.path, self.chunk, self.seconds = recipe, kept, path, chunk, seconds
        self.number, self.stage = number, recipe["stages"][number - 1]
        self.model = model = build(recipe, recipe["precision"], path)
        self.trained = sorted(trained_parts(model, self.stage))
        self.makes_codes = trains_codes(model, self.stage)
        networks = set(self.trained) - model.parts_named(["codes"])
        on_codes = len(networks) == 1 and (codes is not None or not model.num_levels)
        if self.makes_codes and networks or not (self.makes_codes or on_codes):
            raise ValueError(
                "a stage must train codes, or one network on the codes that --codes has, got "
                f"{', '.join(self.trained)}"
            )
        earlier = [trained_parts(model, stage) for stage in recipe["stages"][: number - 1]]
        if again := networks & set().union(*earlier):
            raise ValueError(f"a network must learn in one stage here, got {again.pop()} in several")
        self.name = "codes" if self.makes_codes else self.trained[0]
        model.freeze(*(set(model.parts) - set(self.trained)))
        if codes is not None:
            model.embed_by_codebooks(*fresh_networks(model, recipe, number - 1))
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
            start_step=sum(stage["steps"] for stage in recipe["stages"][: number - 1]),
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
        self.watched = HeldOut(model, held, set(self.trained)) if held is not None else None
        self.program = jax.jit(self._program, donate_argnums=0)

    def plan(self, step):
        """Which images, symmetries and corners the batches of the next chunk have, int32 (chunk, B, ...)."""
        drawn = [self.batches.drawn(step + i) for i in range(self.chunk)]
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

    def assign(self, trainable, others):
        """Gives the model these values."""
        variables = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        for variable, value in zip(variables, [*trainable, *others], strict=True):
            variable.assign(np.asarray(value))

    def figures(self, trainable, others):
        """Held-out figures as `haim_tf train` logs them, of the model with these values; without held-out
        images none."""
        self.assign(trainable, others)
        return self.watched.figures(self.model) if self.watched else {}

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
            for step in range(0, total, self.chunk):
                plans.put(self.plan(step))

        threading.Thread(target=draw, daemon=True).start()
        while done < total:
            spent = (time.monotonic() - begun) / self.seconds if self.seconds and begun else 0.0
            rates = self.rates(done + np.arange(self.chunk), min(spent, 1.0))
            started = time.monotonic()
            state, losses = self.program(state, self.data, plans.get(), rates)
            loss = float(np.asarray(losses).mean())
            if not math.isfinite(loss):
                raise ValueError(
                    f"training went out of bounds by step {done}: a lower learning_rate is wanted"
                )
            seconds, done = time.monotonic() - started, done + self.chunk
            # The first program was compiled on the way.
            late = self.seconds and begun and time.monotonic() - begun + seconds > self.seconds
            if begun is None:
                begun = looked = time.monotonic()
            rows.append({"stage": self.number - 1, "step": done, "seconds": round(seconds, 2), "loss": loss})
            if late or done >= total or time.monotonic() - looked > SAVE_SECONDS:
                looked = time.monotonic()
                self.save(output, state, rows, done, bool(late or done >= total))
                text = "  ".join(
                    f"{name} {x:.5g}" for name, x in rows[-1].items() if name.startswith("holdout")
                )
                rate = self.chunk * stage["batch_size"] / seconds
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
        """Writes the better of the averaged and the last weights, with their held-out figures in the last of
        the rows."""
        candidates = [state[0]]
        if self.averages_at:
            candidates.append([state[2][i] for i in self.averages_at])
        found = [self.figures(weights, state[1]) for weights in candidates]
        best = len(found) - 1  # The averages, where no held-out images say that the last ones are better.
        if self.watched:
            best = min(range(len(found)), key=lambda i: sum(found[i].values()))
        rows[-1].update(found[best])
        if self.makes_codes:
            if final:
                self.save_codes(output, rows, done)
            return
        weights = {f"w{i}": np.asarray(x) for i, x in enumerate(candidates[best])}
        meta = {**self.about(rows, done, final), "codes": digest(self.path)}
        write_output(output, meta, weights)

    def save_codes(self, output, rows, done):
        """Writes the codes, rare ones dropped where the recipe says so."""
        from haim_tf.training.stages import prune

        model = self.model  # Which has the state's values, for the figures.
        if self.recipe["rare_codes_below"]:
            model = prune(model, self.recipe, self.kept)
        parts = weights_of(model, model.parts_named(["codes"]))
        meta = {**self.about(rows, done, final=True), "sizes": model.codebook_sizes}
        meta["parts"] = {name: len(weights) for name, weights in parts.items()}
        arrays = {f"{name}/{i}": x for name, weights in parts.items() for i, x in enumerate(weights)}
        write_output(output, meta, arrays)

    def about(self, rows, done, final):
        """What an output says of the stage."""
        import jax

        return {
            "part": self.name,
            "stage": self.number,
            "steps": done,
            "batch_size": self.stage["batch_size"],
            "rows": rows,
            "device": jax.devices()[0].device_kind,
            "final": final,
        }
