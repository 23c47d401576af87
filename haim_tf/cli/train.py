"""Trains a model by a recipe; an interrupted run goes on where its last checkpoint was."""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("config", None, "Recipe: a JSON file, or a zoo entry's name.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "train", "Split of the data to train on, e.g. train[:90%].")
flags.DEFINE_string("output", None, "Folder of the run; preset/ in it will be the model.", required=True)
flags.DEFINE_string("variant", None, "A named variant of the recipe, such as its baseline.")
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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    from haim_tf import training

    recipe = training.read_recipe(FLAGS.config, variant=FLAGS.variant, smoke=FLAGS.smoke)
    training.train(
        recipe, FLAGS.data, FLAGS.output, split=FLAGS.split, resume=FLAGS.resume, strategy=FLAGS.strategy
    )
    print(f"done: {FLAGS.output}/preset")
