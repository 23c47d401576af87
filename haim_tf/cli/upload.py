"""Puts a preset on the Hugging Face hub, where haim_tf.load("hf://owner/name") finds it.

It needs the package huggingface_hub (pip install "haim-tf[hub]") and a token that may write: `hf auth login`,
or the environment variable HF_TOKEN.
"""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A preset folder, such as runs/mine/preset.", required=True)
flags.DEFINE_string("to", None, "hf://owner/name; made where it does not exist.", required=True)
flags.DEFINE_bool("private", False, "A new repository is only for those whom you let in.")
flags.DEFINE_string(
    "license",
    None,
    "Of the weights, as the hub calls it (apache-2.0, cc-by-nc-4.0); by default that of its metadata, or "
    "else the card tells the terms.",
)


def main(argv: list[str]) -> None:
    from haim_tf import presets

    folder = presets.find(FLAGS.model)
    url = presets.upload(folder, FLAGS.to, private=FLAGS.private, license=FLAGS.license)
    print(f'{FLAGS.model} is at {url}: haim_tf.load("{FLAGS.to}")')
