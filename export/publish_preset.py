"""From the output of a training to a preset folder that can be published: small, checked, its card filled in.

    python export/publish_preset.py --run=runs/mine --output=published/mine --precision=float16 \
        --about=about.json --data=val.npz --num=1000

--run is the folder of a finished `haim_tf train`, a preset folder, or a `.keras` file. What is written and
measured: `haim_tf.evaluation.publish_preset`. --about is a JSON object of what nobody can measure:

    {"description": "...", "dataset": {"name": "...", "terms": "..."}, "limits": ["..."],
     "class_names": ["..."], "training": {"command": "...", "cost": "..."},
     "sampling": {"temperature": [1.0, 0.9], "top_p": 0.98, "guidance": 2.0}, "shown_classes": [0, 13]}

A configuration alone, without weights, and the zoo's `debug`, with random ones:

    python export/publish_preset.py --run=zoo/imagenet128/config.json --about=zoo/imagenet128/about.json \
        --output=published/imagenet128
    python export/publish_preset.py --run=zoo/debug/config.json --random_weights --samples=40 \
        --about=zoo/debug/about.json --output=published/debug
"""

import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "run",
    None,
    "Output folder of a training, preset folder, .keras file, or a preset's config.json.",
    required=True,
)
flags.DEFINE_string(
    "output",
    None,
    "The preset folder, a new one, made with those above it; its name is the model's.",
    required=True,
)
flags.DEFINE_enum("precision", "float32", ["float32", "float16"], "Of the weights in the file.")
flags.DEFINE_string(
    "about",
    None,
    "JSON file with description, dataset, limits, class_names, training, sampling, shown_classes.",
)
flags.DEFINE_string(
    "data", None, "Held-out images to measure on: TFDS name, image folder, .npz or .npy file."
)
flags.DEFINE_string("split", "val", "Split of that data.")
flags.DEFINE_integer("num", None, "Images to take, drawn at random; all by default.", lower_bound=1)
flags.DEFINE_string("baseline", None, "A model without codes to compare with, given as --run is.")
flags.DEFINE_list(
    "score", None, "JSON files: benchmarks/classification_accuracy_score.py of the model, default first."
)
flags.DEFINE_list("baseline_score", None, "JSON files: those of the baseline.")
flags.DEFINE_bool("label_posterior", False, "Measure the accuracy of labels by Bayes' rule as well.")
flags.DEFINE_bool("random_weights", False, "With a config.json: random weights, for tests.")
flags.DEFINE_integer("seed", 0, "Of what is drawn, shuffled and sampled.", lower_bound=0)
flags.DEFINE_integer("samples", 64, "Images in samples.png.", lower_bound=1)
OPTIONS = ("precision", "about", "data", "split", "num", "seed", "samples", "baseline", "score")
OPTIONS += ("baseline_score", "label_posterior", "random_weights")


def main(argv):
    from haim_tf import evaluation

    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        options = {name: FLAGS[name].value for name in OPTIONS}
        folder = evaluation.publish_preset(FLAGS.run, FLAGS.output, **options)
    except (ValueError, OSError) as error:
        print(f"publish_preset: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(f"{folder}: read its README.md, look at its pictures")


if __name__ == "__main__":
    app.run(main)
