"""What fine-tuning gains: a zoo model on other data, as loaded, fine-tuned, and trained from scratch as long.

    python benchmarks/finetuning.py --model=imagenet32 --data=my_folder --minutes=3 --output=finetuning.json

`my_folder` has the splits train and val and a folder per class. Bits/dim are those of its split val. All
start with a class embedding of their own; the codes stay as they are loaded, but for the model from scratch,
which learns its own. Both trainings take the same time on the same machine, compilation apart.
"""

import time

import keras
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "imagenet32", "Name of a pretrained model, or a preset folder.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file, with labels.", required=True)
flags.DEFINE_string("train_split", "train", "What to train on.")
flags.DEFINE_string("val_split", "val", "What to measure on.")
flags.DEFINE_float("minutes", 3.0, "Of each training.", lower_bound=0.0)
flags.DEFINE_integer("batch_size", 32, "Images in a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Adam's, alike for both.", lower_bound=0.0)
flags.DEFINE_integer("seed", 0, "Of initial weights and the order of images.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


class For(keras.callbacks.Callback):
    """Ends a training after so many minutes, counted from the end of its first step, which compiles."""

    def __init__(self, minutes):
        super().__init__()
        self.minutes, self.steps, self.end = minutes, 0, None

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.end = self.end or time.monotonic() + 60 * self.minutes
        if time.monotonic() >= self.end:
            self.model.stop_training = True


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import files

    output = files.check_new_file(FLAGS.output) if FLAGS.output else None
    shape = tuple(haim_tf.presets.read(haim_tf.presets.find(FLAGS.model))[0]["image_shape"])
    train = haim_tf.data.load(FLAGS.data, FLAGS.train_split, image_shape=shape)
    val = haim_tf.data.load(FLAGS.data, FLAGS.val_split, image_shape=shape)
    classes = 1 + int(max(train.labels.max(), val.labels.max()))
    names = train.class_names or [str(label) for label in range(classes)]
    rows = []
    for name, weights, minutes in (
        ("as loaded", True, 0.0),
        ("fine-tuned", True, FLAGS.minutes),
        ("from scratch", False, FLAGS.minutes),
    ):
        keras.utils.set_random_seed(FLAGS.seed)
        model = haim_tf.load(FLAGS.model, weights=weights, class_names=names)
        if weights:
            model.freeze("codes")
        steps = fit(model, train, minutes) if minutes else 0
        bits = model.bits_per_dim(val.images[np.arange(len(val))], val.labels, per_level=True)
        rows.append({"": name, "minutes": minutes, "steps": steps})
        rows[-1] |= {key.replace("_", " "): float(value.mean()) for key, value in bits.items()}
    print()
    measuring.print_table(rows)
    if output:
        files.write_json(output, {"model": FLAGS.model, "train": len(train), "val": len(val), "rows": rows})


def fit(model, images, minutes):
    """Trains what is not frozen for so long; returns the steps taken."""
    import haim_tf

    model.compile(keras.optimizers.Adam(FLAGS.learning_rate), clip_norm=1.0)
    batches = haim_tf.data.Batches(images, FLAGS.batch_size, flip=True, seed=FLAGS.seed)
    clock = For(minutes)
    model.fit(batches, steps_per_epoch=10**9, epochs=1, shuffle=False, verbose=0, callbacks=[clock])
    return clock.steps


if __name__ == "__main__":
    app.run(main)
