"""What a training step costs at any size: operations and memory per image, and images/s to expect from them.

    python benchmarks/scaling.py --models=imagenet128,imagenet256 --memory
    python benchmarks/scaling.py --recipe=plant_village128 --rate=330 --model='{"num_classes": 15}'

Operations are counted, not timed: of every network's unmasked products (see measuring.py), and what
TensorFlow's profiler counts of the autoencoders, forward once and backward twice, once more forward where a
network computes its blocks again (`remat`). Images/s are operations of the given devices, times the share of
their peak that is assumed to be reached, over operations per image. Memory (`--memory`) is measured: training
steps of 1 and of 2 images on this machine's CPU in float32, in processes of their own; the difference is an
image's share. With `--recipe` the stages of a recipe are counted in place of models, with the crops that
they learn on, and the hours that follow from a rate of operations.
"""

import json
import multiprocessing

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["imagenet128", "imagenet256"], "Names of models, or preset folders.")
flags.DEFINE_float("peak", 990.0, "A device's peak in bfloat16, TFLOP/s; that of an NVIDIA H100 by default.")
flags.DEFINE_float("share", 0.3, "The share of the peak that is assumed to be reached.", 0.0, 1.0)
flags.DEFINE_list("devices", ["1", "8"], "Numbers of devices.")
flags.DEFINE_string("recipe", None, "Count the stages of this recipe: a JSON file, or a zoo entry's name.")
flags.DEFINE_string("variant", None, "A named variant of the recipe.")
flags.DEFINE_string("model", "{}", "JSON: other arguments of the recipe's model.")
flags.DEFINE_float("rate", 330.0, "GFLOP/s that training reaches, for the hours of a recipe.", 0.0)
flags.DEFINE_bool("memory", False, "Also measure memory, which takes minutes.")
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    if FLAGS.recipe:
        rows = stages(FLAGS.recipe, FLAGS.variant, json.loads(FLAGS.model), FLAGS.rate)
        measuring.print_table(rows)
        print(f"\nall: {sum(r['PFLOP'] for r in rows):.3g} PFLOP, {sum(r['hours'] for r in rows):.3g} hours")
        if output:
            files.write_json(output, {"stages": rows})
        return
    results = {"parts": [], "images": []}
    for name in FLAGS.models:
        rows = count(name)
        results["parts"] += rows
        step = sum(row["training step, GFLOP/image"] for row in rows)
        row = {"model": name, "parameters": sum(row["parameters"] for row in rows)}
        row["training step, TFLOP/image"] = step / 1e3
        for devices in map(int, FLAGS.devices):
            row[f"images/s on {devices}"] = devices * FLAGS.peak * FLAGS.share * 1e3 / step
        results["images"].append(row)
    for rows in results.values():
        measuring.print_table(rows)
        print()
    if FLAGS.memory:
        results["memory"] = [memory(name) for name in FLAGS.models]
        measuring.print_table(results["memory"])
    if output:
        files.write_json(output, results)


def count(name):
    """Parameters and operations of each part of a model."""
    import haim_tf

    model = haim_tf.load(name, weights=False)
    return [
        {
            "model": name,
            "part": part,
            "parameters": int(layer.count_params()),
            "forward, GFLOP/image": forward_operations(model, part) / 1e9,
            "training step, GFLOP/image": training_operations(model, part) / 1e9,
        }
        for part, layer in model.parts.items()
        if not part.startswith("teacher")  # Counted with its autoencoder.
    ]


def forward_operations(model, part, crop=None):
    """Of an image, or a square of side `crop` of it, through a part of a model."""
    import measuring

    kind, _, level = part.rpartition("_")
    if kind == "autoencoder":
        return autoencoder_operations(model, int(level))
    index = model.num_levels if part == "prior" else int(level) - 1
    shape = model.grid_shapes[index]
    side = None if crop is None else crop * shape[0] // model.image_shape[0]
    return measuring.forward_operations(model.networks[index], shape, side)


def training_operations(model, part, crop=None):
    """Forward once and backward twice, and once more forward where a network computes its blocks again."""
    passes = 3 + getattr(model.parts[part], "remat", False)
    return passes * forward_operations(model, part, crop)


def stages(recipe, variant, changes, rate):
    """Operations of each stage of a recipe, and the hours that they take at `rate` GFLOP/s."""
    import haim_tf
    from haim_tf import training

    recipe = training.read_recipe(recipe, variant=variant)
    model = haim_tf.HierarchicalModel(**{**recipe["model"], **changes})
    rows = []
    for stage in recipe["stages"]:
        trained = model.parts_named(stage["train"] or model.parts)
        parts = [part for part in model.parts if part in trained and not part.startswith("teacher")]
        image = sum(training_operations(model, part, stage["crop"]) for part in parts) / 1e9
        total = image * stage["steps"] * stage["batch_size"]
        row = {"trains": ", ".join(stage["train"] or ["all"]), "steps": stage["steps"]}
        row |= {"batch": stage["batch_size"], "crop": stage["crop"] or "", "GFLOP/image or crop": image}
        rows.append({**row, "PFLOP": total / 1e6, "hours": total / rate / 3600})
    return rows


def autoencoder_operations(model, level):
    """Operations of one image's pass through the autoencoder of a level, as TensorFlow's profiler counts."""
    import tensorflow as tf
    from tensorflow.python.profiler import model_analyzer, option_builder

    shape = model.grid_shapes[level - 1]
    spec = tf.TensorSpec((1, *shape), "int32")
    if level == 1:
        spec = tf.TensorSpec((1, *model.image_shape), "float32")
    run = tf.function(lambda x: model.autoencoders[level - 1](x, training=True)["loss"], autograph=False)
    options = option_builder.ProfileOptionBuilder(option_builder.ProfileOptionBuilder.float_operation())
    graph = run.get_concrete_function(spec).graph
    return model_analyzer.profile(graph, options=options.with_empty_output().build()).total_float_ops


def memory(name):
    peaks = []
    for batch_size in (1, 2):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(_peak_of_a_step, (name, batch_size)))
    return {
        "model": name,
        "peak of a step of 1 image, GB": peaks[0] / 1024,
        "of 2 images, GB": peaks[1] / 1024,
        "an image, GB": (peaks[1] - peaks[0]) / 1024,
    }


def _peak_of_a_step(name, batch_size):
    import measuring

    import haim_tf

    model = haim_tf.load(name, weights=False)
    images = np.random.default_rng(0).integers(256, size=(batch_size, *model.image_shape)).astype("uint8")
    labels = None if model.num_classes is None else np.zeros(batch_size, "int32")
    model.compile()
    model.fit(images, labels, batch_size=batch_size, verbose=0)
    return measuring.peak_memory()


if __name__ == "__main__":
    app.run(main)
