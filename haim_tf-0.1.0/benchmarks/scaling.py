"""What a training step costs at any size: operations and memory per image, and images/s to expect from them.

    python benchmarks/scaling.py --models=imagenet128,imagenet256 --memory

Operations are counted, not timed: of every network's unmasked products (see measuring.py), and what
TensorFlow's profiler counts of the autoencoders, forward once and backward twice, once more forward where a
network computes its blocks again (`remat`). Images/s are operations of the given devices, times the share of
their peak that is assumed to be reached, over operations per image. Memory (`--memory`) is measured: training
steps of 1 and of 2 images on this machine's CPU in float32, in processes of their own; the difference is an
image's share.
"""

import multiprocessing

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["imagenet128", "imagenet256"], "Names of models, or preset folders.")
flags.DEFINE_float("peak", 990.0, "A device's peak in bfloat16, TFLOP/s; that of an NVIDIA H100 by default.")
flags.DEFINE_float("share", 0.3, "The share of the peak that is assumed to be reached.", 0.0, 1.0)
flags.DEFINE_list("devices", ["1", "8"], "Numbers of devices.")
flags.DEFINE_bool("memory", False, "Also measure memory, which takes minutes.")
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
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
    import measuring

    import haim_tf

    model = haim_tf.load(name, weights=False)
    networks = dict(zip((id(n) for n in model.networks), model.grid_shapes, strict=True))
    rows, level = [], 0
    for part, layer in model.parts.items():
        if part.startswith("teacher"):
            continue  # Counted with its autoencoder.
        if id(layer) in networks:
            forward, passes = measuring.forward_operations(layer, networks[id(layer)]), 3 + layer.remat
        else:
            level += 1
            forward, passes = autoencoder_operations(model, level), 3
        rows.append(
            {
                "model": name,
                "part": part,
                "parameters": int(layer.count_params()),
                "forward, GFLOP/image": forward / 1e9,
                "training step, GFLOP/image": passes * forward / 1e9,
            }
        )
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
