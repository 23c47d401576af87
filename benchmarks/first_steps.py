"""What the first steps of fine-tuning do to a loaded model: bits/dim of held-out images after each of them.

    python benchmarks/first_steps.py --model=fashion_mnist28 --data=fashion_mnist --output=first_steps.json

Once by `compile()` as it is without arguments, whose learning rate warms up, and once by Adam at the same
rate from its first step on. Labels of the data go by the names of the model's classes.
"""

import keras
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "imagenet32", "Name of a pretrained model, or a preset folder.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("train_split", "train", "What to train on.")
flags.DEFINE_string("val_split", "val[:64]", "What to measure on, after each step.")
flags.DEFINE_integer("steps", 20, "Steps of each training.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Images in a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 5e-4, "Adam's without warm-up; that of compile() by default.")
flags.DEFINE_integer("seed", 0, "Of the order of images.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


class Measured(keras.callbacks.Callback):
    """Bits/dim of images before the first step and after each."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels, self.bits = images, labels, []

    def on_train_begin(self, logs=None):
        self.bits.append(float(self.model.bits_per_dim(self.images, self.labels).mean()))

    def on_train_batch_end(self, batch, logs=None):
        self.on_train_begin()


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import files
    from haim_tf.class_names import relabelled

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    columns = {}
    for name in ("compile()", "without warm-up"):
        model = haim_tf.load(FLAGS.model)
        train, val = (
            relabelled(haim_tf.data.load(FLAGS.data, split, image_shape=model.image_shape), model)
            for split in (FLAGS.train_split, FLAGS.val_split)
        )
        if name == "compile()":
            model.compile()
        else:
            model.compile(keras.optimizers.Adam(FLAGS.learning_rate))
        measured = Measured(val.images[np.arange(len(val))], val.labels)
        batches = haim_tf.data.Batches(train, FLAGS.batch_size, seed=FLAGS.seed)
        model.fit(
            batches, steps_per_epoch=FLAGS.steps, epochs=1, shuffle=False, verbose=0, callbacks=[measured]
        )
        columns[name] = measured.bits
    rows = [
        {"steps": step, **{name: bits[step] for name, bits in columns.items()}}
        for step in range(FLAGS.steps + 1)
    ]
    print()
    measuring.print_table(
        [{name: f"{x:.3f}" if name != "steps" else x for name, x in row.items()} for row in rows]
    )
    if output:
        files.write_json(output, {"model": FLAGS.model, "train": len(train), "val": len(val), "rows": rows})


if __name__ == "__main__":
    app.run(main)
