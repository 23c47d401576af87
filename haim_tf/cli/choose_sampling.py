"""Chooses what a preset is best sampled with (temperature, top_p, guidance), and keeps it there.

A small classifier learns the images of --split; the Frechet distance of samples from those of --tune_split,
in its features, is what is made small (see haim_tf.evaluation.choose_sampling). Take for --tune_split
training images that the model has not learned, such as its recipe's holdout, and never those that are
reported on. What was chosen, and each draw's distance, go into the preset's metadata.json as `sampling` and
`sampling_chosen`.
"""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A preset folder; its metadata and card are rewritten.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file, with labels.", required=True)
flags.DEFINE_string("split", "train[:-2000]", "Images that the classifier learns.")
flags.DEFINE_string("tune_split", "train[-2000:]", "Images whose distance is made small.")
flags.DEFINE_integer("num", 1000, "Samples of each draw.", lower_bound=2)
flags.DEFINE_integer("draws", 20, "At most how many draws.", lower_bound=1)
flags.DEFINE_integer("steps", 2000, "Steps of the classifier, 128 images each.", lower_bound=1)
flags.DEFINE_string("classifier", None, "A .keras file of a classifier, in place of a new one.")
flags.DEFINE_integer("batch_size", 64, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the classifier and of the samples.", lower_bound=0, upper_bound=2**31 - 1)


def main(argv: list[str]) -> None:
    from haim_tf import data, evaluation, files, presets
    from haim_tf.class_names import relabelled
    from haim_tf.cli._networks import load_network

    folder = files.expanded(FLAGS.model)
    if not (folder / presets.CONFIG).is_file():
        raise FileNotFoundError(f"--model must be a preset folder, got {FLAGS.model!r}")
    files.check_folder_above(folder / presets.METADATA)
    model = presets.load(folder, weights=True)
    train, tune = (
        data.load(FLAGS.data, split, image_shape=model.image_shape)
        for split in (FLAGS.split, FLAGS.tune_split)
    )
    # Before the classifier learns; once more, and then it is said how, by what uses the labels.
    relabelled(tune, model, say=lambda text: None)
    if model.num_classes and tune.labels is None:
        raise ValueError(f"{FLAGS.data} must have labels, which the samples of this model are drawn with")
    if FLAGS.classifier is not None:
        network = load_network("classifier", FLAGS.classifier)
    else:
        if train.labels is None:
            raise ValueError(f"{FLAGS.data} has no labels to learn: name a --classifier")
        classes = int(train.labels.max()) + 1
        network = evaluation.train_classifier(train, classes, steps=FLAGS.steps, seed=FLAGS.seed)
    chosen, log = evaluation.choose_sampling(
        model,
        tune,
        evaluation.feature_layer(network),
        num=FLAGS.num,
        draws=FLAGS.draws,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
    )
    how = {"split": FLAGS.tune_split, "images": len(tune), "samples": FLAGS.num, "draws": log}
    print(f"chosen: {chosen}")
    presets.rewrite_metadata(folder, {"sampling": chosen, "sampling_chosen": how})
    print(f"now in {folder / presets.METADATA}")
