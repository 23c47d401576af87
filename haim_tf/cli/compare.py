"""Compares two sets of images, such as samples and real ones: Frechet distance, precision and recall.

Both are measured in the features of a network: Inception-v3, which Keras downloads, or a Keras model in a
file (such as a classifier of images 0..255, which `haim_tf classifier` makes).
Figures compare only where features and counts are the same.
"""

from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Real images: TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the real images, e.g. test[:1000].")
flags.DEFINE_string(
    "samples", None, "Images to judge: folder, .npz (haim_tf sample --npz) or .npy.", required=True
)
flags.DEFINE_string("extractor", "inception_v3", "A .keras file, or inception_v3.")
flags.DEFINE_string("layer", None, "Layer of the extractor to take; by default what its last layer reads.")
flags.DEFINE_integer(
    "num", None, "Images to take of each, the first ones; by default as many as both have.", lower_bound=2
)
flags.DEFINE_integer("neighbors", 3, "k of precision and recall.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.")


def main(argv: list[str]) -> None:
    import contextlib
    import sys

    import numpy as np

    from haim_tf import data, evaluation, files
    from haim_tf.cli._networks import load_network
    from haim_tf.evaluation.features import check_extractor

    output = None if FLAGS.output is None else files.check_new_file(FLAGS.output)
    samples = data.load(FLAGS.samples)
    real = data.load(FLAGS.data, FLAGS.split, image_shape=samples.image_shape)
    num = min(len(real), len(samples)) if FLAGS.num is None else FLAGS.num
    if num > min(len(real), len(samples)):
        raise ValueError(
            f"--num must be at most the count of real images, {len(real)}, and of samples, {len(samples)}, "
            f"got {num}"
        )
    if FLAGS.neighbors >= num:
        raise ValueError(f"--neighbors must be less than the {num} images of each, got {FLAGS.neighbors}")
    if FLAGS.extractor == "inception_v3":
        if FLAGS.layer:
            raise ValueError("--layer is for extractors from files")
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Keras tells of its download.
                extractor = evaluation.inception_features(samples.image_shape)
        except Exception as error:  # Keras raises errors of many types for what it cannot download.
            raise ValueError(
                "inception_v3 must be downloaded, which failed: give --extractor a Keras model in a file, as "
                f"haim_tf classifier makes ({' '.join(str(error).split())[:200]})"
            ) from error
    else:
        extractor = evaluation.feature_layer(load_network("extractor", FLAGS.extractor), FLAGS.layer)
    check_extractor(extractor, samples.image_shape)
    features = [
        evaluation.extract_features(images.images[np.arange(num)], extractor, FLAGS.batch_size, verbose=True)
        for images in (real, samples)
    ]
    report = {
        "data": FLAGS.data,
        "split": FLAGS.split,
        "samples": FLAGS.samples,
        "extractor": FLAGS.extractor,
        "layer": FLAGS.layer,
        "num": num,
        "frechet_distance": evaluation.frechet_distance(*features),
        **evaluation.precision_and_recall(*features, neighbors=FLAGS.neighbors),
    }
    print(
        f"{num} images each: Frechet distance {report['frechet_distance']:.4f}, precision "
        f"{report['precision']:.4f}, recall {report['recall']:.4f} (k = {report['neighbors']})"
    )
    if output:
        files.write_json(output, report)
        print(f"figures in {output}")
