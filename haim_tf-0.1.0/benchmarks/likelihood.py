"""How fast a zoo model's `log_prob` is, in images a second (and `encode`'s part of it).

python benchmarks/likelihood.py --model=fashion_mnist28 --output=likelihood.json
"""

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "fashion_mnist28", "Name of a model, or a preset folder.")
flags.DEFINE_list("batch_sizes", ["1", "64"], "Numbers of images in a call.")
flags.DEFINE_integer("repeats", 5, "Runs whose median is taken.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    model = haim_tf.load(FLAGS.model)
    rng, rows = np.random.default_rng(0), []
    for size in map(int, FLAGS.batch_sizes):
        images = rng.integers(256, size=(size, *model.image_shape)).astype("uint8")
        labels = None if model.num_classes is None else rng.integers(model.num_classes, size=size)
        functions = {"log_prob": lambda i=images, y=labels: model.log_prob(i, y)}
        if model.num_levels:
            functions["encode"] = lambda i=images: model.encode(i)
        times = measuring.alternate(functions, FLAGS.repeats)
        for name, taken in times.items():
            rows.append(
                {"model": FLAGS.model, "call": name, "batch": size, "s": taken, "images/s": size / taken}
            )
    measuring.print_table(rows)
    if output:
        files.write_json(output, {"likelihood": rows})


if __name__ == "__main__":
    app.run(main)
