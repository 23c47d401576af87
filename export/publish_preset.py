"""From the output of a training to a preset folder that can be published: small, checked, its card filled in.

    python export/publish_preset.py --run=runs/mine --output=published/mine --precision=float16 \
        --about=about.json --data=val.npz --num=1000

--run is the folder of a finished `haim_tf train`, a preset folder, or a `.keras` file. The optimizer's state
is left behind, the weights are converted, and what is then written is loaded again: its bits/dim, code
statistics and errors on the images of --data, and its samples, are those on the card. The weights' sha256
goes into metadata.json, which every load checks. --about is a JSON object of what nobody can measure:

    {"description": "...", "dataset": {"name": "...", "terms": "..."}, "limits": ["..."],
     "class_names": ["..."], "training": {"command": "...", "cost": "..."},
     "sampling": {"temperature": [1.0, 0.9], "top_p": 0.98, "guidance": 2.0}}

"sampling" is how the model samples when nothing else is asked, in samples.png too; samples_plain.png then
shows the model's own distribution beside it.

--baseline is a model without codes, trained alike: its bits/dim on the same images stand beside. --score and
--baseline_score are what benchmarks/classification_accuracy_score.py measured of the two.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "Output folder of a training, preset folder, or .keras file.", required=True)
flags.DEFINE_string("output", None, "The preset folder, a new one; its name is the model's.", required=True)
flags.DEFINE_enum("precision", "float32", ["float32", "float16"], "Of the weights in the file.")
flags.DEFINE_string("about", None, "JSON file with description, dataset, limits, class_names, training.")
flags.DEFINE_string(
    "data", None, "Held-out images to measure on: TFDS name, image folder, .npz or .npy file."
)
flags.DEFINE_string("split", "val", "Split of that data.")
flags.DEFINE_integer("num", None, "Images to take, drawn at random; all by default.", lower_bound=1)
flags.DEFINE_string("baseline", None, "A model without codes to compare with, given as --run is.")
flags.DEFINE_string("score", None, "JSON file: the model's classification accuracy score.")
flags.DEFINE_string("baseline_score", None, "JSON file: that of the baseline.")
flags.DEFINE_integer("seed", 0, "Of what is drawn, shuffled and sampled.", lower_bound=0)
flags.DEFINE_integer("samples", 64, "Images in samples.png.", lower_bound=1)

ABOUT = ("description", "dataset", "limits", "class_names", "training", "sampling")
SAMPLES = "Samples, seed {seed}, {sampling}, none left out."
SAMPLES_BY_CLASS = "Samples, a column a class, seed {seed}, {sampling}, none left out."
PLAIN = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
PLAIN_SAMPLES = 32
RECONSTRUCTIONS = (
    "Held-out images (top row), evenly spaced in the data. Below, level by level from the finest: what the "
    "auxiliary decoders make of the level's codes, then two samples of the main decoders given these codes, "
    "{sampling}."
)
RECONSTRUCTED = 10


def main(argv):
    try:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}; everything is a flag, --name=value")
        folder = publish(
            FLAGS.run,
            FLAGS.output,
            precision=FLAGS.precision,
            about=FLAGS.about,
            data=FLAGS.data,
            split=FLAGS.split,
            num=FLAGS.num,
            seed=FLAGS.seed,
            samples=FLAGS.samples,
            baseline=FLAGS.baseline,
            score=FLAGS.score,
            baseline_score=FLAGS.baseline_score,
        )
    except (ValueError, OSError) as error:
        print(f"publish_preset: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(f"{folder}: read its README.md, look at its samples.png")


def publish(
    run,
    output,
    precision="float32",
    about=None,
    data=None,
    split="val",
    num=None,
    seed=0,
    samples=64,
    baseline=None,
    score=None,
    baseline_score=None,
):
    """Writes the preset folder `output`; arguments as the flags. Returns its `Path`.

    Raises:
        ValueError, FileNotFoundError: no finished training, an existing output folder, an unknown key in
            `about`, data that does not fit the model.
    """
    import haim_tf
    from haim_tf import evaluation, files, presets
    from haim_tf.data.splits import ALL

    output = files.check_new_file(files.absolute(output))
    model, known = _read(files.expanded(run))
    metadata = {"pretrained": known.get("pretrained", True)}
    told = files.read_json(about) if about else {}
    if not isinstance(told, dict) or not set(told) <= set(ABOUT):
        raise ValueError(
            f"{about} must hold an object with keys among {', '.join(ABOUT)}, got {sorted(told)}"
        )
    for key in ABOUT:
        both = isinstance(told.get(key), dict) and isinstance(known.get(key), dict)
        value = {**known[key], **told[key]} if both else told.get(key, known.get(key))
        if value is not None:
            metadata[key] = value
    images = haim_tf.data.load(data, split, image_shape=model.image_shape) if data else None
    if data and not images.split.startswith(ALL):
        split = (
            images.split
        )  # The one found. A file without splits, such as val.npz, is what it is said to be.

    with tempfile.TemporaryDirectory() as scratch:
        # What is measured is what users will load: the converted weights.
        converted = Path(scratch) / output.name
        model.save_to_preset(converted, metadata=metadata, precision=precision)
        model = presets.load(converted)
    if images is not None:
        report = {
            "model": output.name,
            "split": split,
            **evaluation.evaluate(model, images, num=num, seed=seed),
        }
        name = metadata.get("dataset", {}).get("name")
        metadata["evaluation"] = {**report, "data": name} if name else report
        if baseline:
            flat = _read(files.expanded(baseline))[0]
            found = evaluation.evaluate(flat, images, num=num, seed=seed)
            metadata["metrics"] = compared(report, found, flat.count_params(), split)
    for path, whose in ((score, "samples"), (baseline_score, "samples of the model without codes")):
        if path:
            metadata["metrics"] = [*metadata.get("metrics", ()), *scored(files.read_json(path), whose)]
    sheets = {"samples.png": sheet(model, samples, seed)}
    if described(model.sampling_defaults) != described(PLAIN):
        sheets["samples_plain.png"] = sheet(model, min(samples, PLAIN_SAMPLES), seed, **PLAIN)
    if images is not None and model.num_levels:
        caption = RECONSTRUCTIONS.format(sampling=described({**model.sampling_defaults, "guidance": 1.0}))
        sheets["reconstructions.png"] = reconstructions(model, images, seed), RECONSTRUCTED, caption
    metadata["pictures"] = {name: caption for name, (_, _, caption) in sheets.items()}
    model.save_to_preset(output, metadata=metadata, precision=precision)
    try:
        for name, (pictures, columns, _) in sheets.items():
            haim_tf.data.save_grid(pictures, output / name, columns=columns)
    except BaseException:  # Nothing half-written, as where the disk is full.
        shutil.rmtree(files.linked(output), ignore_errors=True)
        raise
    return output


def sheet(model, samples, seed, **sampling):
    """Samples, a column a class where there is room; the columns of their sheet (or `None`); its caption."""
    labels, columns, caption = None, None, SAMPLES
    if model.num_classes and model.num_classes <= samples:
        columns, caption = model.num_classes, SAMPLES_BY_CLASS
        samples -= samples % columns
        labels = [i % columns for i in range(samples)]
    pictures = model.sample(samples, labels, seed=seed, **sampling)
    said = described({**model.sampling_defaults, **sampling})
    return pictures, columns, caption.format(seed=seed, sampling=said)


def described(sampling):
    """How a model samples, in words.

    Example:
        >>> described({"temperature": [1.0, 0.9], "top_p": [0.95, 0.95], "guidance": 2.0})
        'temperature 1, 0.9 (level by level, then the prior), top_p 0.95, guidance 2'
    """
    words = []
    for name, values in sampling.items():
        values = [f"{x:g}" for x in np.ravel(values)]
        if len(set(values)) > 1:
            words.append(f"{name} {', '.join(values)} (level by level, then the prior)")
        elif name == "temperature" or values[0] != "1":
            words.append(f"{name} {values[0]}")
    return ", ".join(words)


def compared(report, baseline, parameters, split):
    """Rows of the card, from two `evaluate` reports: the baseline's bits/dim, the bound against it."""
    total, flat = (found["bits_per_dim"]["total"] for found in (report, baseline))
    of = {"split": split, "count": str(report["num"])}
    return [
        {
            "name": f"bits/dim of a model without codes ({parameters:,} parameters)",
            "value": f"{flat:.4f}",
            **of,
        },
        {"name": "the whole bound against it", "value": f"{total / flat - 1:+.1%}", **of},
    ]


def scored(score, whose):
    """Rows of the card's table from what benchmarks/classification_accuracy_score.py wrote."""
    of = {"split": "val", "count": str(score["num_val"])}
    classes = f"{len(score['classes'])} classes"
    if "sampling" in score:
        whose += f" ({described(score['sampling'])})"
    return [
        {
            "name": f"accuracy of a classifier of {classes} trained on {score['num_samples']:,} {whose}",
            "value": f"{score['accuracy_samples']:.4f} ({score['ratio']:.1%} of the "
            f"{score['accuracy_real']:.4f} of one trained on {score['num_train']:,} real images)",
            **of,
        },
        {
            "name": f"Frechet distance of the {whose}, in the features of the latter",
            "value": f"{score['frechet_distance']:.3f} (of real training images "
            f"{score['frechet_distance_real']:.3f})",
            **of,
        },
    ]


def reconstructions(model, images, seed):
    """The rows of reconstructions.png, one after the other, uint8 `(N, H, W, C)`."""
    places = np.linspace(0, len(images) - 1, RECONSTRUCTED).astype(int)
    rows = [np.asarray(images.images[places])]
    for level in range(1, model.num_levels + 1):
        if model.has_auxiliary(level):
            rows.append(model.reconstruct(rows[0], level=level, decoder="auxiliary"))
        rows += [model.reconstruct(rows[0], level=level, seed=seed + i) for i in range(2)]
    return np.concatenate(rows)


def _read(run):
    """The model that a training left, and what is known of it."""
    import keras

    from haim_tf import presets
    from haim_tf.models import HierarchicalModel

    if run.suffix == ".keras" and run.is_file():
        model = keras.saving.load_model(run, compile=False)
        if not isinstance(model, HierarchicalModel):
            raise ValueError(f"{run} holds a {type(model).__name__}, not a HierarchicalModel")
        return model, {"class_names": model.class_names}
    if (run / "recipe.json").is_file() and (run / "preset").is_dir():
        run = run / "preset"
    elif (run / "recipe.json").is_file() and (run / "checkpoint.npz").exists():
        raise ValueError(f"the training in {run} is not finished: go on with it, by the same command")
    if not (run / presets.CONFIG).is_file():
        raise FileNotFoundError(f"{run} is neither a training's output folder, a preset nor a .keras file")
    return presets.load(run, weights=True), presets.read(run)[1]


if __name__ == "__main__":
    app.run(main)
