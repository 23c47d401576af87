"""Samples images from a model into a PNG sheet.

Labels are taken in turn, image by image, and each column of the sheet is a label where there are several.
"""

from absl import flags

from haim_tf.cli._labels import choose_labels
from haim_tf.cli._output import check_arrays, check_sheet, write_arrays

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_integer("num", 16, "How many images.", lower_bound=1)
flags.DEFINE_list(
    "labels",
    None,
    "Classes of a class-conditional model: numbers or names with commas between them, or 'all' for every "
    "class, which is the default. Image i gets the label i modulo the number of labels.",
)
flags.DEFINE_integer("seed", 0, "The same seed gives the same images.")
flags.DEFINE_list(
    "temperature",
    ["1"],
    "1 samples the model's distribution, less sharpens it; one number, or one a level and the prior.",
)
flags.DEFINE_list(
    "top_p", ["1"], "Mass of the nucleus to sample from; one number, or one a level and the prior."
)
flags.DEFINE_integer("batch_size", 64, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("columns", None, "Images in a row of the sheet.", lower_bound=1)
flags.DEFINE_string("output", "samples.png", "The sheet, a .png file; one that is there is replaced.")
flags.DEFINE_string("npz", None, "Also write images and labels to this new .npz file.")


def main(argv):
    from haim_tf import data, presets

    output = check_sheet(FLAGS.output)
    npz = check_arrays(FLAGS.npz) if FLAGS.npz else None
    temperature, top_p = (_numbers(name, FLAGS[name].value) for name in ("temperature", "top_p"))
    model = presets.load(FLAGS.model)
    turns = choose_labels(FLAGS.labels, model.num_classes, model.class_names)
    labels = turns and [turns[i % len(turns)] for i in range(FLAGS.num)]
    images = model.sample(
        FLAGS.num, labels, FLAGS.seed, temperature, top_p, batch_size=FLAGS.batch_size, verbose=True
    )
    columns = FLAGS.columns
    if columns is None and turns and 1 < len(turns) <= FLAGS.num:
        columns = len(turns)
    data.save_grid(images, output, columns=columns)
    if npz:
        write_arrays(npz, images=images, labels=labels, class_names=model.class_names)
    print(f"{FLAGS.num} images in {output}")


def _numbers(name, texts):
    """One float, or a list of several."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        raise ValueError(f"--{name} must be numbers, got {','.join(texts)!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers
