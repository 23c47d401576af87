"""Trains a small classifier, in whose features `haim_tf compare` and `choose_sampling` measure.

It is that of haim_tf.evaluation.small_classifier. Figures compare only where the classifier is the same.
"""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file, with labels.", required=True)
flags.DEFINE_string("split", "train", "Images to learn, e.g. train[:90%].")
flags.DEFINE_string(
    "val_split", None, "Images to tell the accuracy on, e.g. val; by default it is not measured."
)
flags.DEFINE_string(
    "model",
    None,
    "Name of a model, or a preset folder, to whose size images are brought, such as the one that is to be "
    "measured; by default they must be of one size.",
)
flags.DEFINE_integer("steps", 2000, "Steps, 128 images each.", lower_bound=1)
flags.DEFINE_integer(
    "seed", 0, "Of initial weights and the order of images.", lower_bound=0, upper_bound=2**32 - 1
)
flags.DEFINE_string("output", None, "The .keras file, a new one.", required=True)


def main(argv: list[str]) -> None:
    from pathlib import Path

    from haim_tf import data, evaluation, files, presets

    if Path(FLAGS.output).suffix != ".keras":
        raise ValueError(f"--output must be a file that ends in .keras, got {FLAGS.output}")
    output = files.check_new_file(FLAGS.output)
    shape = None
    if FLAGS.model is not None:
        shape = tuple(presets.read(presets.find(FLAGS.model))[0]["image_shape"])
    train = data.load(FLAGS.data, FLAGS.split, image_shape=shape)
    val = data.load(FLAGS.data, FLAGS.val_split, image_shape=train.image_shape) if FLAGS.val_split else None
    for images in (train, val):
        if images is not None and images.labels is None:
            raise ValueError(f"{FLAGS.data} must have labels, which the classifier learns")
    classes = int(train.labels.max()) + 1
    network = evaluation.train_classifier(train, classes, steps=FLAGS.steps, seed=FLAGS.seed)
    files.write_by_path(output, network.save)
    right = "" if val is None else f", right on {evaluation.accuracy(network, val):.4f} of {len(val)} others"
    print(f"a classifier of {classes} classes, learned from {len(train)} images, in {output}{right}")
