"""How good samples are: the classification accuracy score of a model, and the Frechet distance.

Samples one image for each of a number of randomly drawn labels, trains the same small classifier on them and
on the real training images for the same number of steps, and tests both on real images: the validation
images, or more of them (--score_data, --score_split), for an accuracy's standard error is 0.03 on 250. The
Frechet distance is that of the samples from the validation images, in the features that the classifier
trained on real images decides by; beside it stands that of as many real training images. How the samples were
drawn, by the model's own `sampling_defaults` unless flags say otherwise, is in the output ("sampling").

    python benchmarks/classification_accuracy_score.py --model=fashion_mnist28 --data=fashion_mnist \
        --output=score.json

The samples and that classifier stay beside the output (score.samples.npz, score.classifier.keras);
--samples and --classifier take them up again. Distances compare only where the classifier is the same.
"""

from pathlib import Path

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a class-conditional model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file: split train.", required=True)
flags.DEFINE_string("val_data", None, "The same for validation: split val; by default that of --data.")
flags.DEFINE_string(
    "score_data", None, "The same for what accuracies are measured on; by default the validation's."
)
flags.DEFINE_string("score_split", "val", "Split of that data, such as the `score` of hold_back.py.")
flags.DEFINE_list(
    "classes", None, "Classes to sample and keep of the data, numbers or names; by default all."
)
flags.DEFINE_enum(
    "labels",
    "uniform",
    ["uniform", "data"],
    "Labels of the samples: all alike, or as often as the training images have them, which is what samples "
    "are to stand for where classes are unbalanced.",
)
flags.DEFINE_integer("num_samples", 20000, "Samples to train on.", lower_bound=1)
flags.DEFINE_string("samples", None, "The .npz file of an earlier run's samples, instead of new ones.")
flags.DEFINE_string("classifier", None, "The .keras file of an earlier run with the same data and steps.")
flags.DEFINE_multi_float(
    "temperature",
    None,
    "One, or (repeated) one per level, finest first, and the prior; by default the model's own.",
)
flags.DEFINE_multi_float("top_p", None, "The same.")
flags.DEFINE_float("guidance", None, "By default the model's own.")
flags.DEFINE_bool("plain", False, "Sample the model's distribution: temperature, top_p and guidance 1.")
flags.DEFINE_integer(
    "seed", 0, "Seed of labels, samples and trainings.", lower_bound=0, upper_bound=2**31 - 1
)
flags.DEFINE_integer("batch_size", 250, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("steps", 2000, "Steps of each training, 128 images each.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.", required=True)


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    from measuring import check_apart, of_classes

    from haim_tf import data, evaluation, files, presets
    from haim_tf.class_names import relabelled

    output = files.check_new_file(FLAGS.output)
    model = presets.load(FLAGS.model)
    if model.num_classes is None:
        raise ValueError(f"{FLAGS.model} is not class-conditional: its samples have no labels to learn")
    evaluation.check_weights(model)
    classes = chosen_classes(model)
    val_data = FLAGS.val_data or FLAGS.data
    train, val, scored = (
        data.load(name, split, image_shape=model.image_shape)
        for name, split in (
            (FLAGS.data, "train"),
            (val_data, "val"),
            (FLAGS.score_data or val_data, FLAGS.score_split),
        )
    )
    for held_out, flag in ((val, "--val_data"), (scored, "--score_data")):
        check_apart(train, held_out, flag)
    for images in (train, val, scored):
        if images.labels is None:
            raise ValueError(f"{images.name} must have labels: the score is of classifiers that learn them")
    train, val, scored = (of_classes(relabelled(images, model), classes) for images in (train, val, scored))

    if FLAGS.samples:
        samples = relabelled(data.load(FLAGS.samples), model)
        if samples.labels is None:
            raise ValueError(f"--samples: {FLAGS.samples} must hold labels")
        drawn = {"samples": FLAGS.samples}
    else:
        model.sampling_defaults = chosen_sampling(model)
        path = files.check_new_file(output.with_suffix(".samples.npz"))
        samples, drawn = draw_samples(model, classes, train, path)
    samples = of_classes(samples, classes)
    network = real_classifier(train, len(classes), output)
    judge = evaluation.Judge(network, train, val, scored)
    score = judge.score_samples(samples, steps=FLAGS.steps, seed=FLAGS.seed)
    real = judge.score_real(len(samples), seed=FLAGS.seed)
    given = ("model", "data", "val_data", "score_data", "score_split")
    score = {**{name: FLAGS[name].value for name in given}, **drawn, **score, "classes": classes}
    score |= {f"{name}_real": real[name] for name in ("frechet_distance", "precision", "recall")}
    files.write_json(output, score)
    ratio = "unknown" if score["ratio"] is None else f"{score['ratio']:.4f}"
    print(
        f"accuracy on {score['num_scored']} real images, {FLAGS.score_split}: "
        f"{score['accuracy_samples']:.4f} ± {score['standard_error_samples']:.4f} trained on "
        f"{score['num_samples']} samples, {score['accuracy_real']:.4f} ± {score['standard_error_real']:.4f} "
        f"trained on {score['num_train']} real images; ratio {ratio} ({score['steps']} steps of "
        f"{score['batch_size']} each); Frechet distance from {score['num_val']} validation images "
        f"{score['frechet_distance']:.3f}, of real images {score['frechet_distance_real']:.3f}"
    )


def chosen_classes(model):
    from haim_tf.cli._labels import choose_labels

    return sorted(set(choose_labels(FLAGS.classes, model.num_classes, model.class_names, flag="classes")))


def chosen_sampling(model):
    """What the flags say, as `sampling_defaults` of the model."""
    flags = {name: FLAGS[name].value for name in ("temperature", "top_p", "guidance")}
    given = {name: value for name, value in flags.items() if value is not None}
    if FLAGS.plain and given:
        raise ValueError(f"--plain sets temperature, top_p and guidance: leave out --{sorted(given)[0]}")
    given = {name: x[0] if isinstance(x, list) and len(x) == 1 else x for name, x in given.items()}
    return None if FLAGS.plain else {**model.sampling_defaults, **given}


def draw_samples(model, classes, train, path):
    """Samples for randomly drawn labels, kept at `path`, and how they were drawn."""
    from haim_tf import evaluation, files

    counts = np.bincount(train.labels, minlength=len(classes)) if FLAGS.labels == "data" else None
    samples = evaluation.draw_samples(
        model,
        FLAGS.num_samples,
        classes,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
        verbose=True,
        frequencies=counts,
    )
    arrays = {"images": samples.images, "labels": samples.labels}
    files.write_file(path, lambda file: np.savez_compressed(file, **arrays))
    return samples, {"samples": Path(path).name, "labels": FLAGS.labels, "sampling": model.sampling_defaults}


def real_classifier(train, num_classes, output):
    """The classifier trained on the real images, or the one that an earlier run trained."""
    import keras

    from haim_tf import evaluation

    if FLAGS.classifier:
        return keras.saving.load_model(FLAGS.classifier, compile=False)
    network = evaluation.train_classifier(train, num_classes, steps=FLAGS.steps, seed=FLAGS.seed)
    network.save(output.with_suffix(".classifier.keras"))
    return network


if __name__ == "__main__":
    app.run(main)
