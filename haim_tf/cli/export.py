"""Exports a model as a SavedModel, which TensorFlow alone runs and TensorFlow Serving serves.

It is written to the next version folder of the output folder: 1, 2, ... `saved_model_cli show --all` lists
its signatures; haim_tf.saved_model.export documents them.
"""

import os

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("output", None, "Folder of the versions, made where absent.", required=True)
flags.DEFINE_string("name", None, "The model's name for those who serve it; by default the output folder's.")
flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "bfloat16", "float16"],
    "Of the weights in the file; encoders and codebooks stay float32.",
)
flags.DEFINE_list(
    "batch_sizes",
    ["1", "8", "32"],
    "Batch sizes that sampling is compiled for; others are filled up or cut into pieces.",
)
flags.DEFINE_bool("warmup", True, "Write the requests with which TensorFlow Serving warms up.")
flags.DEFINE_bool(
    "xla", True, "Compile the sampling loops; --noxla: for servers without XLA, and much slower sampling."
)


def main(argv: list[str]) -> None:
    from haim_tf import presets, saved_model
    from haim_tf.backend import require_tensorflow

    require_tensorflow("export")
    if not all(size.strip().isdecimal() for size in FLAGS.batch_sizes):
        raise ValueError(f"--batch_sizes must be positive ints, got {','.join(FLAGS.batch_sizes)!r}")
    version = saved_model.export(
        presets.load(FLAGS.model, weights=True),
        FLAGS.output,
        dtype=FLAGS.dtype,
        batch_sizes=[int(size) for size in FLAGS.batch_sizes],
        warmup=FLAGS.warmup,
        xla=FLAGS.xla,
        name=FLAGS.name,
    )
    print(f"{FLAGS.model} in {os.path.join(FLAGS.output, version.name)}")
