"""Which shapes of network pay: arms that differ in one thing, trained alike, held-out figures at the end.

    python benchmarks/networks.py --model=imagenet64 --data=data64 --output=networks.json
    python benchmarks/networks.py ... --parts=prior --steps=3000 --only=base,wide

All arms learn on the same published codes of --model, each for whole schedules (warm-up, cosine decay to a
hundredth) of each of the lengths --steps: early leads turn. `pixels` are main decoders of level 1 on crops,
`codes` those of level 2, `prior` the prior; each has a base and what is changed of it. Figures are bits per
element of the last --held_out training images, which no arm learns on: whole images, whatever the crops.
"""

import math
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "imagenet64", "Whose codes: a model with two levels.")
flags.DEFINE_string("data", None, "Images: folder, .npz or .npy; split train.", required=True)
flags.DEFINE_list("parts", ["pixels", "codes", "prior"], "Which networks.")
flags.DEFINE_list("only", None, "Names of arms; by default all of the parts.")
flags.DEFINE_list("steps", None, "Lengths of the schedules; by default the part's own.")
flags.DEFINE_integer("held_out", 500, "Images kept out of training.", lower_bound=1)
flags.DEFINE_integer("num", 40000, "Training images, the first ones.", lower_bound=1)
flags.DEFINE_integer("crop", 32, "Side of the crops that level 1 learns on.", lower_bound=1)
flags.DEFINE_string(
    "output", None, "JSON file for the figures; arms that it holds are not run again.", required=True
)

PIXELS = {"width": 64, "blocks": 4, "kernel_size": [3, 5], "condition_width": 64, "condition_blocks": 2}
CODES = {**PIXELS, "blocks": 5, "attention": [1, 3]}
PRIOR = {"width": 96, "blocks": 6, "kernel_size": [3, 5], "attention": [1, 3, 5], "dropout": 0.1}
# Of each part: schedules, images a step, learning rate; then each arm's changes. Keys with a capital letter
# are of the training, not of the network.
PARTS = {
    "pixels": {
        "steps": (300, 600),
        "batch_size": 16,
        "base": PIXELS,
        "arms": {
            "base": {},
            "condition_blocks 4": {"condition_blocks": 4},
            "condition_blocks 8": {"condition_blocks": 8},
            "overlap": {"condition_overlap": True},
            "whole, then cut": {"Whole": True},
        },
    },
    "codes": {
        "steps": (300, 600),
        "batch_size": 32,
        "base": CODES,
        "arms": {
            "base": {},
            "condition_blocks 8": {"condition_blocks": 8},
            "overlap": {"condition_overlap": True},
        },
    },
    "prior": {
        "steps": (400, 800),
        "batch_size": 32,
        "base": PRIOR,
        "arms": {
            "base": {},
            "wider": {"width": 136, "blocks": 6},
            "deeper": {"width": 96, "blocks": 12, "attention": [1, 3, 5, 7, 9, 11]},
            "batch 128": {"Batch": 128},
            "dropout 0": {"dropout": 0.0},
            "dropout 0.2": {"dropout": 0.2},
            "labels dropped 1 in 10": {"label_dropout": 0.1},
        },
    },
}


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    from pathlib import Path

    from haim_tf import data, files, presets

    output = Path(FLAGS.output)
    rows = files.read_json(output) if output.exists() else []
    model = presets.load(FLAGS.model)
    images = data.load(FLAGS.data, "train", image_shape=model.image_shape)
    kept, held = images.split_off(FLAGS.held_out)
    kept = data.ImageData(kept.images[: FLAGS.num], kept.labels[: FLAGS.num], name=kept.name)
    sets = [dataset(model, part) for part in (kept, held)]
    for part in FLAGS.parts:
        settings = PARTS[part]
        for steps in [int(n) for n in FLAGS.steps or settings["steps"]]:
            for name, change in settings["arms"].items():
                key = {"part": part, "arm": name, "steps": steps}
                if (FLAGS.only and name not in FLAGS.only) or any(key.items() <= row.items() for row in rows):
                    continue
                rows.append({**key, **run(model, part, settings, change, steps, *sets)})
                files.write_json(output, rows)
                print(line(rows[-1]), flush=True)
    print("\n".join(["", *table(rows)]))


def dataset(model, images):
    """Grids by level, pixels first, and labels."""
    codes = [[] for _ in range(model.num_levels)]
    for start in range(0, len(images), 256):
        for grids, found in zip(codes, model.encode(images.images[start : start + 256]), strict=True):
            grids.append(found.astype("uint8"))
    return [images.images, *(np.concatenate(grids) for grids in codes)], images.labels


def run(model, part, settings, change, steps, train, held):
    """Trains one arm; its figures."""
    import keras
    import tensorflow as tf

    from haim_tf.likelihoods import Categorical, DiscretizedLogisticMixture
    from haim_tf.networks import PixelCNN
    from haim_tf.processor import quick_precision

    keras.utils.set_random_seed(0)
    config = {**settings["base"], **{k: v for k, v in change.items() if k.islower()}}
    batch_size = change.get("Batch", settings["batch_size"])
    steps = steps * settings["batch_size"] // batch_size
    level = {"pixels": 0, "codes": 1, "prior": model.num_levels}[part]
    likelihood = (
        DiscretizedLogisticMixture(3, 10) if level == 0 else Categorical(model.codebook_sizes[level - 1])
    )
    conditions = (
        {"num_classes": model.num_classes}
        if part == "prior"
        else {
            "codebook_size": model.codebook_sizes[level],
            "upsampling": model.grid_shapes[level][0] // model.grid_shapes[level + 1][0],
        }
    )
    network = PixelCNN(likelihood, **config, **conditions, dtype=quick_precision("mixed_bfloat16"))
    network.build()
    codebooks = [keras.ops.convert_to_numpy(a.quantizer.codebook) for a in model.autoencoders]
    network.embed_by_codebook(
        elements=codebooks[level - 1] if level else None, codes=None if part == "prior" else codebooks[level]
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, alpha=0.01, warmup_target=2e-3, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.Adam(schedule, beta_2=0.99, global_clipnorm=1.0)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(network.log_prob(**batch, training=True))
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    @tf.function(reduce_retracing=True)
    def log_prob(batch):
        return tf.reduce_sum(network.log_prob(**batch), axis=[1, 2])

    rng = np.random.default_rng(0)
    start = time.time()
    for _ in range(steps):
        chosen = rng.integers(len(train[1]), size=batch_size)
        corners = rng.integers(1 << 30, size=(batch_size, 2))
        step(tensors(part, level, *train, chosen, corners, bool(change.get("Whole"))))
    seconds = time.time() - start
    found = [
        log_prob(tensors(part, level, *held, np.arange(i, min(i + 50, len(held[1])))))
        for i in range(0, len(held[1]), 50)
    ]
    elements = math.prod(train[0][level].shape[1:])
    return {
        "bits": float(-np.concatenate(found).mean() / elements / math.log(2.0)),
        "parameters": network.count_params(),
        "steps_run": steps,
        "batch_size": batch_size,
        "seconds": round(seconds, 1),
    }


def tensors(part, level, grids, labels, chosen, corners=None, whole=False):
    """What a network's `log_prob` takes, of chosen images; crops of the pixels where there are corners."""
    import tensorflow as tf

    x = grids[level][chosen].astype("int32")
    if part == "prior":
        return {"x": tf.constant(x), "labels": tf.constant(labels[chosen], tf.int32)}
    codes = grids[level + 1][chosen].astype("int32")
    batch = {}
    if part == "pixels" and corners is not None:
        cell = x.shape[1] // codes.shape[1]
        corners = corners % ((x.shape[1] - FLAGS.crop) // cell + 1)
        size = FLAGS.crop // cell

        def cut(grid, places, side):
            return np.stack([g[r : r + side, c : c + side] for g, (r, c) in zip(grid, places, strict=True)])

        x = cut(x, corners * cell, FLAGS.crop)
        if whole:
            batch["corner"] = tf.constant(corners * cell, tf.int32)
        else:
            codes = cut(codes, corners, size)
    return {"x": tf.constant(x), "codes": tf.constant(codes), **batch}


COLUMNS = {
    "part": str,
    "arm": str,
    "steps": str,
    "batch_size": str,
    "parameters": "{:,}".format,
    "seconds": "{:.0f}".format,
    "bits": "{:.4f}".format,
}


def line(row):
    return "| " + " | ".join(show(row[name]) for name, show in COLUMNS.items()) + " |"


def table(rows):
    """The lines of a Markdown table."""
    names = ["part", "arm", "steps of the base", "images a step", "parameters", "s", "bits an element"]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|", *map(line, rows)]


if __name__ == "__main__":
    app.run(main)
