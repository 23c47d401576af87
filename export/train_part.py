"""Trains one part of a recipe's model on one GPU or TPU under JAX, with its data kept on the device.

Stages that learn on finished codes do not wait for one another: each may have a process, a GPU or a machine
of its own. Batches, losses, clipping, optimizer and averages are those of `haim_tf train`.

    export KERAS_BACKEND=jax
    python export/train_part.py --config=RECIPE --data=DATA --stage=1 --output=codes.npz
    for stage in 2 3 4; do
        python export/train_part.py --config=RECIPE --data=DATA --codes=codes.npz --cache=cache.npz \
            --stage=$stage --output=stage_$stage.npz &
    done; wait
    python export/train_part.py --config=RECIPE --data=DATA --codes=codes.npz \
        --join=stage_2.npz,stage_3.npz,stage_4.npz --output=RUN

The last makes a finished run of them: checkpoint, log and preset, no pictures. With --seconds a stage that
would take longer ends by then, its learning rate brought down along the time; the run's recipe.json has the
steps that were made.
"""

import os
import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("config", None, "A recipe: a JSON file or the name of a zoo entry.", required=True)
flags.DEFINE_string("variant", None, "One of the recipe's variants.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "train", "Split of that data.")
flags.DEFINE_string(
    "codes", None, "What has the codes: a preset folder, or the output of the stage of codes."
)
flags.DEFINE_string("cache", None, "An .npz file for the images' codes, which other stages may share.")
flags.DEFINE_integer("stage", None, "Which of the recipe's stages, from 1.", lower_bound=1)
flags.DEFINE_list("join", None, "Outputs of all stages but that of the codes: makes a run of them.")
flags.DEFINE_float(
    "seconds", None, "At most how long, from the end of the first program on.", lower_bound=0.0
)
flags.DEFINE_integer("chunk", 50, "Steps of one program.", lower_bound=1)
flags.DEFINE_string("output", None, "An .npz file; with --join the folder of the run.", required=True)


def main(argv):
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        if (FLAGS.stage is None) == (FLAGS.join is None):
            raise ValueError("one of --stage and --join must be given")
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        if keras.backend.backend() != "jax":
            raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
        join_parts() if FLAGS.join else train_part()
    except (ValueError, OSError) as error:
        print(f"train_part: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def read():
    """The recipe with its model's configuration as the codes have it, and the images."""
    from parts.outputs import read_codes

    from haim_tf import data
    from haim_tf.training.recipe import read_recipe, with_classes_of

    recipe = read_recipe(FLAGS.config, variant=FLAGS.variant)
    if recipe.get("from"):
        raise ValueError("a recipe must begin from scratch here; `haim_tf train` goes on from a preset")
    images = data.load(FLAGS.data, FLAGS.split, image_shape=recipe["model"]["image_shape"])
    recipe = with_classes_of(recipe, images)
    if FLAGS.codes:
        _, sizes = read_codes(FLAGS.codes)
        for level, size in zip(recipe["model"]["levels"], sizes, strict=True):
            level["codebook_size"] = size  # Rare codes may have been dropped.
    return recipe, images


def join_parts():
    from parts.join import join

    recipe, images = read()
    join(recipe, images, FLAGS.data, FLAGS.split, FLAGS.codes, FLAGS.join, FLAGS.output)


def train_part():
    import fcntl

    from parts.outputs import build
    from parts.part import Part

    from haim_tf import files, progress
    from haim_tf.training.code_cache import cached_codes
    from haim_tf.training.recipe import check_recipe

    output = files.check_new_file(FLAGS.output)
    recipe, images = read()
    stages = recipe["stages"]
    if FLAGS.stage > len(stages):
        raise ValueError(f"--stage must be one of the recipe's {len(stages)} stages, got {FLAGS.stage}")
    stage = stages[FLAGS.stage - 1]
    if stage["steps"] % FLAGS.chunk:
        raise ValueError(f"--chunk must divide the stage's {stage['steps']} steps, got {FLAGS.chunk}")
    if stage.get("patience"):
        raise ValueError(f"a stage must be without patience here, got {stage['patience']}")
    model = build(recipe, "float32", FLAGS.codes)
    check_recipe(recipe, model, images)
    kept, held = images.split_off(recipe["holdout"]) if recipe["holdout"] else (images, None)
    codes = None
    if FLAGS.codes and model.num_levels:
        if not FLAGS.cache:
            raise ValueError("--cache must be given with --codes: a file to keep the images' codes in")
        with open(f"{FLAGS.cache}.lock", "ab") as lock:  # The first process writes them, the others read.
            fcntl.flock(lock, fcntl.LOCK_EX)
            codes = cached_codes(model, kept, FLAGS.cache, recipe["flip"], turns=recipe["turns"])
    part = Part(recipe, FLAGS.stage, kept, held, FLAGS.codes, codes, FLAGS.chunk, FLAGS.seconds)
    progress.tell(f"stage {FLAGS.stage}: {part.name}, {part.num_parameters:,} parameters")
    part.train(output)


if __name__ == "__main__":
    app.run(main)
