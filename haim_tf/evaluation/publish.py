"""From a training's output to a preset folder that can be published: small, checked, its card filled in."""

import shutil
import tempfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import keras

import haim_tf.data
from haim_tf import files, presets
from haim_tf.checks import is_about_arguments, require_int
from haim_tf.class_names import relabelled
from haim_tf.data.splits import ALL
from haim_tf.evaluation.classification import standard_error
from haim_tf.evaluation.report import MAX_SEED, check_weights, evaluate, evaluate_and_score
from haim_tf.evaluation.sheets import described, make_sheets
from haim_tf.models import HierarchicalModel

ABOUT = ("description", "dataset", "limits", "class_names", "training", "sampling", "shown_classes")


def publish_preset(
    run: str | PathLike,
    output: str | PathLike,
    precision: str = "float32",
    about: str | PathLike | None = None,
    data: str | PathLike | None = None,
    split: str = "val",
    num: int | None = None,
    seed: int = 0,
    samples: int = 64,
    baseline: str | PathLike | None = None,
    score: str | PathLike | Sequence[str | PathLike] | None = None,
    baseline_score: str | PathLike | Sequence[str | PathLike] | None = None,
    label_posterior: bool = False,
    random_weights: bool = False,
) -> Path:
    """Publishes a model: a new preset folder whose card says what was measured, with pictures.

    The optimizer's state is left behind, the weights are converted, and what is then written is loaded again:
    its bits/dim, code statistics and errors on `data`, and its samples, are those on the card.

    Args:
        run: the folder of a finished `haim_tf train`, a preset folder, or a `.keras` file; or a preset's
            `config.json`, which is published without weights.
        output: the preset folder, a new one; its name is the model's.
        precision: of the weights in the file, `"float32"` or `"float16"`.
        about: a JSON file, an object of what nobody can measure. All keys may be left out; those that `run`
            already tells are kept where this says nothing:

            - `description`, `dataset`, `limits`, `class_names`, `training`, `sampling`: as in the metadata of
              `presets.save_to_preset`;
            - `shown_classes`: a list of the labels that classes.png shows, the first ten by default.
        data: held-out images to measure on: TFDS name, image folder, `.npz` or `.npy` file.
        split: split of that data.
        num: how many of its images, drawn at random; `None`: all.
        seed: an int, 0 or more, of what is drawn, shuffled and sampled.
        samples: images in samples.png.
        baseline: a model without codes, trained alike, given as `run` is: its bits/dim on the same images
            stand beside.
        score, baseline_score: what benchmarks/classification_accuracy_score.py wrote of the two; several
            files, such as those of default and of plain sampling, as a list.
        label_posterior: also measure how often the label is the most probable one by Bayes' rule, which
            costs a pass of the prior, and of main decoders that are told labels, for each image and label.
        random_weights: with a `config.json`: random weights by `seed`, for tests, of a model that heeds all
            of its input.

    Returns:
        The folder. Beside the preset's files it holds, of a model with weights:

        - samples.png, as the model samples when nothing else is asked, and, where that is not plain,
          samples_plain.png, the model's own distribution;
        - classes.png, of class-conditional models: a row per class; and guidance.png, of those that take
          guidance: the same rows under guidance 1, 2 and 4;
        - reconstructions.png, where there are codes and `data`.

    Raises:
        ValueError, FileNotFoundError: no finished training, an existing output folder, an unknown key in
            `about`, data that does not fit the model, a posterior of labels that there are not.

    Example:
        >>> folder = publish_preset("runs/mine", "published/mine", precision="float16",
        ...                         about="about.json", data="val.npz", num=1000)
        >>> sorted(path.name for path in folder.glob("*.png"))
        ['classes.png', 'reconstructions.png', 'samples.png']
    """
    output, run = files.absolute(output), files.expanded(run)
    if output.exists():
        raise ValueError(f"{output} exists: name another folder, or remove it")
    if Path(run).suffix == ".json":
        weights = random_weights
        model, known = read_config(Path(run), random_weights, seed), {"pretrained": False}
        if not weights and (data or baseline or score or baseline_score):
            raise ValueError(f"{run} is a configuration: without weights there is nothing to measure")
    elif random_weights:
        raise ValueError(f"random weights are for a config.json, got {run}")
    else:
        weights = True
        model, known = read_run(Path(run))
    if label_posterior and not (data and model.num_classes):
        raise ValueError("the label's posterior needs data, and a class-conditional model: leave it out")
    metadata = {"pretrained": known.get("pretrained", True), **merged(known, about)}
    _check_shown_classes(metadata.get("shown_classes"), model)
    seed = require_int("seed", seed, low=0, high=MAX_SEED)
    samples = require_int("samples", samples, low=1)
    metrics = []
    for paths, whose in ((score, "samples"), (baseline_score, "samples of the model without codes")):
        for path in [paths] if isinstance(paths, (str, PathLike)) else paths or ():
            metrics += _read_score(path, whose)
    images = haim_tf.data.load(data, split, image_shape=model.image_shape) if data else None
    flat = read_run(files.expanded(baseline))[0] if baseline else None
    for measured in (model, flat):
        if measured is not None and images is not None:
            _check_fits(measured, images)
    with files.as_value_error(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    files.check_new_file(output)
    if not weights:
        model.save_to_preset(output, metadata=metadata, precision=precision, weights=False)
        return output
    if images is not None and not images.split.startswith(ALL):
        split = images.split  # The one found. A file without splits is what it is said to be.

    with tempfile.TemporaryDirectory() as scratch:
        # What is measured is what users will load: the converted weights.
        converted = Path(scratch) / output.name
        model.save_to_preset(converted, metadata=metadata, precision=precision)
        history = model.weights_history
        model = presets.load(converted)
        model.weights_history = history  # It comes from where it came from, not from that copy.
    if images is not None:
        if label_posterior:
            report = evaluate_and_score(model, images, num=num, seed=seed)[0]
            metrics = [label_accuracy(report, split), *metrics]
        else:
            report = evaluate(model, images, num=num, seed=seed)
        name = metadata.get("dataset", {}).get("name")
        metadata["evaluation"] = {"model": output.name, "split": split, **report}
        if name:
            metadata["evaluation"]["data"] = name
        if flat is not None:
            found = evaluate(flat, images, num=num, seed=seed)
            metrics = [*compared(report, found, flat.count_params(), split), *metrics]
    if metrics:
        metadata["metrics"] = metrics
    sheets = make_sheets(model, samples, seed, metadata.get("shown_classes"), images)
    metadata["pictures"] = {name: caption for name, (_, _, caption) in sheets.items()}
    model.save_to_preset(output, metadata=metadata, precision=precision)
    try:
        for name, (sheet, columns, _) in sheets.items():
            haim_tf.data.save_grid(sheet, output / name, columns=columns)
    except BaseException:  # Nothing half-written, as where the disk is full.
        shutil.rmtree(files.linked(output), ignore_errors=True)
        raise
    return output


# What is there ---------------------------------------------------------------------------------------


def read_run(run: Path) -> tuple[HierarchicalModel, dict]:
    """The model that a training left, a preset holds or a `.keras` file, and what is known of it; errors as
    `publish_preset`."""
    if run.suffix == ".keras" and run.is_file():
        try:
            model = keras.saving.load_model(run, compile=False)
        except Exception as error:  # Keras raises errors of many types for what is no model.
            raise ValueError(f"{run} cannot be read as a Keras model: {error}") from error
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


def read_config(path: Path, random_weights: bool = False, seed: int = 0) -> HierarchicalModel:
    """A fresh model of a preset's `config.json`; with `random_weights` one that heeds all of its input.

    A fresh network predicts nearly the same whatever it sees: with `random_weights` the networks' kernels and
    embeddings are drawn anew, with a standard deviation of 0.3.

    NOTE: it sets Keras' global random seed.

    Raises:
        ValueError: the file does not describe a model.
    """
    config = files.read_json(path)
    if not isinstance(config, dict) or config.get("class_name") != HierarchicalModel.__name__:
        raise ValueError(f"{path} must be a preset's {presets.CONFIG}, of a HierarchicalModel")
    keras.utils.set_random_seed(seed)
    try:
        model = HierarchicalModel(**config["config"])
    except Exception as error:
        if not isinstance(error, KeyError) and not is_about_arguments(error):
            raise
        raise ValueError(f"{path} does not describe a model: {error}") from error
    if random_weights:
        for network in model.networks:
            for weight in network.weights:
                if len(weight.shape) > 1:
                    weight.assign(keras.random.normal(weight.shape, stddev=0.3))
    return model


def merged(known: dict, about: str | PathLike | None) -> dict:
    """Metadata that nobody can measure: what is known of a run, and over it what the file `about` says."""
    told = files.read_json(about) if about else {}
    if not isinstance(told, dict) or not set(told) <= set(ABOUT):
        raise ValueError(
            f"{about} must hold an object with keys among {', '.join(ABOUT)}, got {sorted(told)}"
        )
    metadata = {}
    for key in ABOUT:
        both = isinstance(told.get(key), dict) and isinstance(known.get(key), dict)
        value = {**known[key], **told[key]} if both else told.get(key, known.get(key))
        if value is not None:
            metadata[key] = value
    if "sampling_chosen" in known and "sampling" not in told:
        metadata["sampling_chosen"] = known["sampling_chosen"]  # By `haim_tf choose_sampling`.
    return metadata


def _check_shown_classes(classes, model):
    count = model.num_classes or 0
    if classes is not None and not (
        isinstance(classes, list) and classes and all(c in range(count) for c in classes)
    ):
        raise ValueError(f"shown_classes must be labels of the model's {count} classes, got {classes!r}")


def _check_fits(model, images):
    """A ValueError where a model cannot be measured on an `ImageData`."""
    if model.image_shape != images.image_shape:
        raise ValueError(
            f"the models must be of images of one shape, got {model.image_shape} and {images.image_shape}"
        )
    check_weights(model)
    relabelled(images, model, say=lambda text: None)  # It is said once, by what measures.
    if model.num_classes and images.labels is None:
        raise ValueError(f"{images.name} must have labels, for the model has classes")


# Figures ---------------------------------------------------------------------------------------------


def compared(report: dict, baseline: dict, parameters: int, split: str) -> list[dict]:
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


def label_accuracy(report: dict, split: str) -> dict:
    """A row of the card, from an `evaluate_and_score` report of a class-conditional model."""
    posterior = report["label_posterior"]
    return {
        "name": "accuracy of the label by Bayes' rule from the model's likelihoods",
        "value": _share(posterior["accuracy"], posterior["num"]),
        "split": split,
        "count": str(posterior["num"]),
    }


def _read_score(path, whose):
    """The rows of a score's file."""
    try:
        return scored(files.read_json(path), whose)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be what benchmarks/classification_accuracy_score.py writes, got {error!r}"
        ) from error


def scored(score: dict, whose: str) -> list[dict]:
    """Rows of the card's table from what benchmarks/classification_accuracy_score.py wrote."""
    of_val = {"split": "val", "count": str(score["num_val"])}
    num = score.get("num_scored", score["num_val"])
    classes = f"{len(score['classes'])} classes"
    if "sampling" in score:
        whose += f" ({described(score['sampling'])})"
    return [
        {
            "name": f"accuracy of a classifier of {classes} trained on {score['num_samples']:,} {whose}",
            "value": f"{_share(score['accuracy_samples'], num)} ({score['ratio']:.1%} of the "
            f"{_share(score['accuracy_real'], num)} of one trained on {score['num_train']:,} real images)",
            "split": score.get("score_split", "val"),
            "count": str(num),
        },
        {
            "name": f"Frechet distance of the {whose}, in the features of the latter",
            "value": f"{score['frechet_distance']:.3f} (of real training images "
            f"{score['frechet_distance_real']:.3f})",
            **of_val,
        },
    ]


def _share(share, num):
    """A share of `num` images with its standard error."""
    return f"{share:.4f} ± {standard_error(share, num):.4f}"
