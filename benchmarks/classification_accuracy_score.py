"""How good samples are: the classification accuracy score of a model, and the Frechet distance.

Samples one image for each of a number of uniformly drawn labels, trains the same small classifier on them
and on the real training images for the same number of steps, and tests both on real validation images. The
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
flags.DEFINE_list(
    "classes", None, "Classes to sample and keep of the data, numbers or names; by default all."
)
flags.DEFINE_integer("num_samples", 20000, "Samples to train on.", lower_bound=1)
flags.DEFINE_string("samples", None, "The .npz file of an earlier run's samples, instead of new ones.")
flags.DEFINE_string("classifier", None, "The .keras file of an earlier run with the same data and steps.")
flags.DEFINE_multi_float(
    "temperature",
    None,
    "One, or (repeated) one a level, finest first, and the prior; by default the model's own.",
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
    from haim_tf import data, evaluation, files, presets
    from haim_tf.class_names import relabelled

    output = files.check_new_file(FLAGS.output)
    model = presets.load(FLAGS.model)
    if model.num_classes is None:
        raise ValueError(f"{FLAGS.model} is not class-conditional: its samples have no labels to learn")
    evaluation.check_weights(model)
    classes = chosen_classes(model)
    train = data.load(FLAGS.data, "train", image_shape=model.image_shape)
    val = data.load(FLAGS.val_data or FLAGS.data, "val", image_shape=model.image_shape)
    if len(val) == len(train) and np.array_equal(val.images[:100], train.images[:100]):
        raise ValueError("training and validation images are the same: name others with --val_data")
    for images in (train, val):
        if images.labels is None:
            raise ValueError(f"{images.name} must have labels: the score is of classifiers that learn them")
    train, val = (of_classes(relabelled(images, model), classes) for images in (train, val))

    if FLAGS.samples:
        samples = relabelled(data.load(FLAGS.samples), model)
        if samples.labels is None:
            raise ValueError(f"--samples: {FLAGS.samples} must hold labels")
        drawn = {"samples": FLAGS.samples}
    else:
        model.sampling_defaults = chosen_sampling(model)
        path = files.check_new_file(output.with_suffix(".samples.npz"))
        samples, drawn = draw_samples(model, classes, path)
    samples = of_classes(samples, classes)
    network = real_classifier(train, len(classes), output)
    score = evaluation.classification_accuracy_score(
        samples.images,
        samples.labels,
        train,
        val,
        steps=FLAGS.steps,
        seed=FLAGS.seed,
        real_classifier=network,
    )
    score = {"model": FLAGS.model, "data": FLAGS.data, "val_data": FLAGS.val_data, **drawn, **score}
    score |= {"classes": classes, **distances(network, train, val, samples)}
    files.write_json(output, score)
    print(
        f"accuracy on {score['num_val']} real validation images: {score['accuracy_samples']:.4f} trained on "
        f"{score['num_samples']} samples, {score['accuracy_real']:.4f} trained on {score['num_train']} real "
        f"images; ratio {score['ratio']:.4f} ({score['steps']} steps of {score['batch_size']} each); "
        f"Frechet distance {score['frechet_distance']:.3f}, of real images "
        f"{score['frechet_distance_real']:.3f}"
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


def of_classes(images, classes):
    """The images of these classes, with labels 0, 1, ... in their order."""
    from haim_tf import data

    rows = np.flatnonzero(np.isin(images.labels, classes))
    labels = np.searchsorted(classes, images.labels[rows])
    return data.ImageData(images.images[rows], labels, name=images.name)


def draw_samples(model, classes, path):
    """Samples for uniformly drawn labels, kept at `path`, and how they were drawn."""
    from haim_tf import data, files

    labels = np.random.default_rng(FLAGS.seed).choice(classes, size=FLAGS.num_samples)
    images = model.sample(
        len(labels), labels=labels, seed=FLAGS.seed, batch_size=FLAGS.batch_size, verbose=True
    )
    files.write_file(path, lambda file: np.savez_compressed(file, images=images, labels=labels))
    return data.ImageData(images, labels), {"samples": Path(path).name, "sampling": model.sampling_defaults}


def real_classifier(train, num_classes, output):
    """The classifier trained on the real images, or the one that an earlier run trained."""
    import keras

    from haim_tf import evaluation

    if FLAGS.classifier:
        return keras.saving.load_model(FLAGS.classifier, compile=False)
    network = evaluation.train_classifier(train, num_classes, steps=FLAGS.steps, seed=FLAGS.seed)
    network.save(output.with_suffix(".classifier.keras"))
    return network


def distances(network, train, val, samples):
    """Frechet distances from the validation images, of as many samples and real training images."""
    from haim_tf import evaluation

    extractor = evaluation.feature_layer(network)
    rows = np.random.default_rng(FLAGS.seed).permutation(len(train))[: len(samples)]
    real, drawn, others = (
        evaluation.extract_features(images, extractor)
        for images in (val.images, samples.images, train.images[np.sort(rows)])
    )
    return {
        "frechet_distance": evaluation.frechet_distance(real, drawn),
        "frechet_distance_real": evaluation.frechet_distance(real, others),
    }


if __name__ == "__main__":
    app.run(main)
