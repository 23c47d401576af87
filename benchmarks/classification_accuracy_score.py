"""How good a training set a model's samples are: the classification accuracy score of a model.

Samples one image for each of a number of uniformly drawn labels, trains the same small classifier on them
and on the real training images for the same number of steps, and tests both on real validation images.

    python benchmarks/classification_accuracy_score.py --model=fashion_mnist28 --data=fashion_mnist \
        --output=score.json

The samples stay in an .npz file beside the output (score.samples.npz); --samples takes them up again.
"""

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a class-conditional model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file: split train.", required=True)
flags.DEFINE_string("val_data", None, "The same for validation: split val; by default that of --data.")
flags.DEFINE_integer("num_samples", 20000, "Samples to train on.", lower_bound=1)
flags.DEFINE_string("samples", None, "The .npz file of an earlier run's samples, instead of new ones.")
flags.DEFINE_multi_float("temperature", [1.0], "One, or (repeated) one a level, finest first, and the prior.")
flags.DEFINE_multi_float("top_p", [1.0], "One, or (repeated) one a level, finest first, and the prior.")
flags.DEFINE_integer("seed", 0, "Seed of labels, samples and trainings.", lower_bound=0)
flags.DEFINE_integer("batch_size", 250, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("steps", 2000, "Steps of each training, 128 images each.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.", required=True)


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    from haim_tf import data, evaluation, files, presets

    output = files.check_new_file(FLAGS.output)
    model = presets.load(FLAGS.model)
    if model.num_classes is None:
        raise ValueError(f"{FLAGS.model} is not class-conditional: its samples have no labels to learn")
    train = data.load(FLAGS.data, "train", image_shape=model.image_shape)
    val = data.load(FLAGS.val_data or FLAGS.data, "val", image_shape=model.image_shape)
    if len(val) == len(train) and np.array_equal(val.images[:100], train.images[:100]):
        raise ValueError("training and validation images are the same: name others with --val_data")

    if FLAGS.samples:
        samples = data.load(FLAGS.samples)
        sampling = {"samples": FLAGS.samples}
    else:
        samples, sampling = draw_samples(model, files.check_new_file(output.with_suffix(".samples.npz")))
    score = evaluation.classification_accuracy_score(
        samples.images, samples.labels, train, val, steps=FLAGS.steps, seed=FLAGS.seed
    )
    score = {"model": FLAGS.model, "data": FLAGS.data, "val_data": FLAGS.val_data, **sampling, **score}
    files.write_json(output, score)
    print(
        f"accuracy on {score['num_val']} real validation images: {score['accuracy_samples']:.4f} trained on "
        f"{score['num_samples']} samples, {score['accuracy_real']:.4f} trained on {score['num_train']} real "
        f"images; ratio {score['ratio']:.4f} ({score['steps']} steps of {score['batch_size']} each)"
    )


def draw_samples(model, path):
    """Samples for uniformly drawn labels, kept at `path`, and how they were drawn."""
    from haim_tf import data, files

    labels = np.random.default_rng(FLAGS.seed).integers(model.num_classes, size=FLAGS.num_samples)
    sampling = {
        name: values[0] if len(values) == 1 else values
        for name, values in (("temperature", FLAGS.temperature), ("top_p", FLAGS.top_p))
    }
    images = model.sample(
        len(labels), labels=labels, seed=FLAGS.seed, **sampling, batch_size=FLAGS.batch_size, verbose=True
    )
    files.write_file(path, lambda file: np.savez_compressed(file, images=images, labels=labels))
    return data.ImageData(images, labels), {"samples": str(path), **sampling}


if __name__ == "__main__":
    app.run(main)
