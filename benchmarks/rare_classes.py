"""Do samples help a classifier with rare classes: recall of the rarest, trained with and without them.

    python benchmarks/rare_classes.py --model=plant_village128 --data=leaves --output=rare.json

The small classifier (see `haim_tf.evaluation.small_classifier`) learns the training images at `--size`
pixels, for the same steps, in three ways: `real`, as they are; `oversampled`, the images of the rarest
classes repeated until each has as many as the median class; `samples`, filled up to that number with
samples of the model instead. Recall is of the validation images of the rarest classes together, accuracy
of all validation images. Standard errors are of the mean over trainings with different seeds; that of a
share of so few images (binomial) stands beside it.
"""

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a class-conditional model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, folder, .npz or .npy file, with labels.", required=True)
flags.DEFINE_string("train_split", "train", "What to train on.")
flags.DEFINE_string("val_split", "val", "What to measure on.")
flags.DEFINE_integer("rarest", 3, "How many classes, the rarest of the training images.", lower_bound=1)
flags.DEFINE_integer("size", 64, "Side that all images are brought to.", lower_bound=8)
flags.DEFINE_integer("seeds", 3, "Trainings of each kind.", lower_bound=2)
flags.DEFINE_integer("steps", 2000, "Steps of each training, 128 images each.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images sampled at once.", lower_bound=1)
flags.DEFINE_string("samples", None, "The .npz file of an earlier run's samples, instead of new ones.")
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.", required=True)


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import data, evaluation, files
    from haim_tf.class_names import relabelled

    output = files.check_new_file(FLAGS.output)
    model = haim_tf.load(FLAGS.model)
    if model.num_classes is None:
        raise ValueError(f"{FLAGS.model} is not class-conditional: no class of it can be sampled")
    shape = (FLAGS.size, FLAGS.size, model.image_shape[2])
    splits = (FLAGS.train_split, FLAGS.val_split)
    train, val = (relabelled(data.load(FLAGS.data, s, image_shape=shape), model) for s in splits)
    counts = np.bincount(train.labels, minlength=model.num_classes)
    rare = np.argsort(counts, kind="stable")[: FLAGS.rarest]
    wanted = {int(label): max(0, int(np.median(counts)) - int(counts[label])) for label in rare}
    samples = FLAGS.samples or draw(model, wanted, files.check_new_file(output.with_suffix(".samples.npz")))
    sets = {
        "real": train,
        "oversampled": repeated(train, wanted),
        "samples": joined(train, data.load(str(samples), image_shape=shape)),
    }
    is_rare = np.isin(val.labels, rare)
    rows = []
    for name, images in sets.items():
        found = []
        for seed in range(FLAGS.seeds):
            network = evaluation.train_classifier(images, model.num_classes, steps=FLAGS.steps, seed=seed)
            found.append(predictions(network, val) == val.labels)
        found = np.array(found)
        rows.append({"trained on": name, "images": len(images)})
        for score, right in (("recall of the rarest", found[:, is_rare]), ("accuracy", found)):
            each = right.mean(axis=1)
            rows[-1][score] = float(each.mean())
            rows[-1][f"{score}, standard error"] = float(each.std(ddof=1) / np.sqrt(len(each)))
            rows[-1][f"{score}, binomial"] = evaluation.standard_error(float(each.mean()), right.shape[1])
    names = model.class_names or list(map(str, range(model.num_classes)))
    known = {"model": FLAGS.model, "data": FLAGS.data, "rarest": [names[label] for label in rare]}
    known |= {"validation images": int(is_rare.sum()), "samples": wanted, "steps": FLAGS.steps}
    files.write_json(output, {**known, "seeds": FLAGS.seeds, "rows": rows})
    measuring.print_table(rows)


def draw(model, wanted, path):
    """Samples of each class, as many as are wanted, kept at `path`."""
    from haim_tf import files

    images, labels = [], []
    for label, count in wanted.items():
        for start in range(0, count, FLAGS.batch_size):
            # A seed a sample, and a full batch: one compiled program, whatever is left of it.
            seeds = np.stack([np.full(FLAGS.batch_size, label), start + np.arange(FLAGS.batch_size)], axis=1)
            batch = model.sample(FLAGS.batch_size, labels=label, seed=seeds)[: count - start]
            images.append(batch)
            labels += [label] * len(batch)
    if not images:
        raise ValueError("the rarest classes must be rarer than the median one, got classes that are not")
    arrays = {"images": np.concatenate(images), "labels": np.array(labels, "int32")}
    files.write_file(path, lambda file: np.savez_compressed(file, **arrays))
    return path


def repeated(train, wanted):
    """The images, and so many more of each class, its own again and again."""
    from haim_tf import data

    rows = [np.arange(len(train))]
    for label, count in wanted.items():
        own = np.flatnonzero(train.labels == label)
        if len(own):
            rows.append(np.resize(own, count))
    rows = np.concatenate(rows)
    return data.ImageData(train.images[rows], train.labels[rows], name=f"{train.name}, oversampled")


def joined(train, samples):
    """The images and samples, with their labels."""
    from haim_tf import data

    images = np.concatenate([train.images[np.arange(len(train))], samples.images])
    labels = np.concatenate([train.labels, samples.labels])
    return data.ImageData(images, labels, name=f"{train.name} and samples")


def predictions(network, images):
    """The likeliest label of each image, int (N,)."""
    from haim_tf.data import in_order

    return np.concatenate(
        [network.predict_on_batch(batch).argmax(axis=1) for batch, _ in in_order(images, 128)]
    )


if __name__ == "__main__":
    app.run(main)
