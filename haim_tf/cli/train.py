"""Trains a model by a recipe, or fine-tunes one; an interrupted run goes on where its last checkpoint was.

With --config a model is trained by a recipe. With --from a preset learns the pictures of --data: their
classes, by name, become its classes, a part of the pictures is held out, and the weights that do best on it
are kept, never worse ones than as loaded (see haim_tf.training.fine_tune).
"""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("config", None, "Required, or --from: a recipe's JSON file, or the name of a zoo entry.")
flags.DEFINE_string("from", None, "Required, or --config: name of a model, or a preset folder, to fine-tune.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "train", "Split of the data to train on, e.g. train[:90%].")
flags.DEFINE_string("output", None, "Folder of the run; preset/ in it will be the model.", required=True)
flags.DEFINE_bool("smoke", False, "A few steps of a few images only, to try the whole path.")
flags.DEFINE_bool("resume", True, "Go on with an interrupted run found in the output folder.")
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "data_parallel", "mirrored", "multi_worker"],
    "What shares each batch: none (one device); all devices of this machine, data_parallel under JAX and "
    "mirrored under TensorFlow; multi_worker (all machines that TF_CONFIG names; start the same command on "
    "each; TensorFlow).",
)
flags.DEFINE_string("variant", None, "With --config: a named variant of the recipe, such as its baseline.")
flags.DEFINE_list(
    "freeze", ["codes"], "With --from: parts that stay as they are: codes, decoders, prior, level_1, ..."
)
flags.DEFINE_integer("steps", 2000, "With --from: at most so many steps.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "With --from: at its highest.")
flags.DEFINE_integer("batch_size", 32, "With --from: images in a step.", lower_bound=1)
flags.DEFINE_integer(
    "holdout", None, "With --from: images held out; by default a tenth, at most 256.", lower_bound=1
)
flags.DEFINE_integer(
    "patience", 5, "With --from: ends after so many times 50 steps without a better holdout.", lower_bound=1
)
flags.DEFINE_bool("flip", False, "With --from: mirror half of the images.")
flags.DEFINE_integer(
    "seed", 0, "With --from: of what is drawn at random.", lower_bound=0, upper_bound=2**31 - 1
)
FINE_TUNING = ("freeze", "steps", "learning_rate", "batch_size", "holdout", "patience", "flip", "seed")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    if (FLAGS.config is None) == (FLAGS["from"].value is None):
        raise ValueError("name one of --config, a recipe, and --from, a model to fine-tune")
    of_the_other = ("variant",) if FLAGS.config is None else FINE_TUNING
    if given := [name for name in of_the_other if FLAGS[name].present]:
        raise ValueError(f"--{given[0]} is for {'--config' if FLAGS.config is None else '--from'}")
    from haim_tf import files, training

    shared = {"split": FLAGS.split, "resume": FLAGS.resume, "strategy": FLAGS.strategy}
    if FLAGS.config is None:
        options = {name: FLAGS[name].value for name in FINE_TUNING}
        training.fine_tune(
            FLAGS["from"].value, FLAGS.data, FLAGS.output, smoke=FLAGS.smoke, **options, **shared
        )
    else:
        recipe = training.read_recipe(FLAGS.config, variant=FLAGS.variant, smoke=FLAGS.smoke)
        training.train(recipe, FLAGS.data, FLAGS.output, **shared)
    print(f"done: {files.expanded(FLAGS.output) / 'preset'}")
