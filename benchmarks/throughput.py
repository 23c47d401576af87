"""What training and sampling make of the device that is there, under either backend.

    python benchmarks/throughput.py --models=fashion_mnist28 --output=throughput.json
    KERAS_BACKEND=jax python benchmarks/throughput.py --precisions=mixed_bfloat16 --batch_size=256

Training is `fit` as a recipe's stage runs it for one network, from images and codes in memory, batches and
all: random ones, for their values do not matter. Sampling is that network's, of one batch. Operations are
those of products, of unmasked taps only, one forward pass for a sample and three for a step. Beside them run,
in the same process, the forward and backward passes of one plain convolution of the blocks' shape (all taps
count) and of one plain matrix product of the blocks' width: the shares are rates over theirs.
"""

import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["fashion_mnist28"], "Names of models, or preset folders; weights are random.")
flags.DEFINE_list("parts", ["decoder_1", "prior"], "Networks of each: decoder_1, ..., prior.")
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "Dtype policies.")
flags.DEFINE_integer("batch_size", 64, "Images of a step, and of a sample.", lower_bound=1)
flags.DEFINE_integer("steps", 16, "Steps between two readings of the clock.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Runs whose median is taken.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    rows = [
        measure(name, part, precision)
        for name in FLAGS.models
        for part in FLAGS.parts
        for precision in FLAGS.precisions
    ]
    measuring.print_table(rows)
    if output:
        files.write_json(output, {"throughput": rows})


def measure(name, part, precision):
    import keras
    import measuring

    import haim_tf
    from haim_tf import presets

    arguments, _ = presets.read(presets.find(name))
    model = haim_tf.HierarchicalModel(**arguments, dtype=precision)
    if part not in [network.name for network in model.networks]:
        raise ValueError(f"--parts must be networks of {name}, got {part!r}")
    index = [network.name for network in model.networks].index(part)
    network, shape = model.networks[index], model.grid_shapes[index]
    convolution, convolution_work = measuring.plain_convolution(network, shape, FLAGS.batch_size)
    product, product_work = measuring.plain_product(network, shape, FLAGS.batch_size)
    functions = {"sampling": sampling(model, index), "convolution": convolution, "product": product}
    times = measuring.alternate(functions, FLAGS.repeats)
    times["step"] = training_step(model, part)
    forward = FLAGS.batch_size * measuring.forward_operations(network, shape)
    work = {"step": 3 * forward, "sampling": forward}
    work |= {"convolution": convolution_work, "product": product_work}
    rates = {name: work[name] / times[name] / 1e9 for name in work}
    row = {
        "model": name,
        "network": part,
        "backend": keras.backend.backend(),
        "device": keras.distribution.list_devices()[0],
        "precision": precision,
        "batch": FLAGS.batch_size,
    }
    for what in ("convolution", "product"):
        row[f"plain {what}, GFLOP/s"] = rates[what]
    for what, key in (("training", "step"), ("sampling", "sampling")):
        row[f"{what}, images/s"] = FLAGS.batch_size / times[key]
        row[f"{what}, GFLOP/s"] = rates[key]
        row[f"{what}, of the convolution"] = rates[key] / rates["convolution"]
        row[f"{what}, of the product"] = rates[key] / rates["product"]
    return row


def sampling(model, index):
    from haim_tf.sampling import seed_pairs

    network, sampler = model.networks[index], model.sampler(index)
    rng, given = np.random.default_rng(0), {}
    if network.codebook_size:
        size = (FLAGS.batch_size, *model.grid_shapes[index + 1])
        given["codes"] = rng.integers(network.codebook_size, size=size).astype("int32")
    if network.num_classes:
        given["labels"] = rng.integers(network.num_classes, size=FLAGS.batch_size).astype("int32")
    return lambda: sampler(seed_pairs(0, FLAGS.batch_size), 1.0, 1.0, **given)


def training_step(model, part):
    """Median seconds of a step of `fit`."""
    import keras

    from haim_tf.data import Batches, ImageData
    from haim_tf.training.strategy import steps_a_program

    rng = np.random.default_rng(0)
    count = 4 * FLAGS.batch_size
    images = rng.integers(0, 256, (count, *model.image_shape)).astype("uint8")
    labels = rng.integers(model.num_classes, size=count) if model.num_classes else None
    codes = [
        rng.integers(size, size=(1, count, *grid)).astype(np.min_scalar_type(size - 1))
        for size, grid in zip(model.codebook_sizes, model.grid_shapes[1:], strict=True)
    ]
    batches = Batches(ImageData(images, labels), FLAGS.batch_size, codes=codes or None)
    model.freeze(*(set(model.parts) - {part}))
    optimizer = keras.optimizers.Adam(1e-6, use_ema=True)
    model.compile(optimizer, steps_per_execution=steps_a_program(FLAGS.steps))
    clock = _Clock()
    epochs = {"steps_per_epoch": FLAGS.steps, "epochs": 1 + FLAGS.repeats}
    model.fit(batches, shuffle=False, verbose=0, callbacks=[clock.callback()], **epochs)
    return float(np.median(np.diff(clock.read))) / FLAGS.steps


class _Clock:
    """Reads the clock at the end of each epoch: the first one compiles."""

    def __init__(self):
        self.read = []

    def callback(self):
        import keras

        def read(epoch, logs):
            float(logs["loss"])  # Not before the device is done.
            self.read.append(time.perf_counter())

        return keras.callbacks.LambdaCallback(on_epoch_end=read)


if __name__ == "__main__":
    app.run(main)
