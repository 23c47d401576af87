"""Samples images from a model into a PNG sheet.

Labels are taken in turn, image by image, and each column of the sheet is a label where there is room. Without
--labels they are all the classes, and where there are more of those than images, drawn at random by the seed.
"""

from absl import flags

from haim_tf.cli import _sheets
from haim_tf.cli._labels import choose_labels
from haim_tf.cli._numbers import parse_numbers
from haim_tf.cli._output import check_arrays, check_sheet, write_arrays

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_sheets)
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_integer("num", 16, "How many images.", lower_bound=1, upper_bound=10**6)
flags.DEFINE_list(
    "labels",
    None,
    "Classes of a class-conditional model: numbers or names with commas between them, or 'all' for every "
    "class. Image i gets the label i modulo the number of labels.",
)
flags.DEFINE_integer("seed", 0, "The same seed gives the same images.")
flags.DEFINE_list(
    "temperature",
    None,
    "1 samples the model's distribution, less sharpens it; one number, or one per level, finest first, and "
    "the prior. By default the preset's own values.",
)
flags.DEFINE_list(
    "top_p",
    None,
    "Mass of the nucleus to sample from; one number, or one per level and the prior. By default the preset's "
    "own values.",
)
flags.DEFINE_float(
    "guidance",
    None,
    "How far samples are moved towards the label: 1 samples the model's distribution, more sharpens what "
    "belongs to the label. By default the preset's own value; others than 1 are for presets whose networks "
    "were trained with labels left out.",
)
flags.DEFINE_integer("batch_size", 64, "Images sampled at once.", lower_bound=1)
flags.DEFINE_integer("columns", None, "Images in a row of the sheet.", lower_bound=1)
flags.DEFINE_string("output", "samples.png", "The sheet, a .png file; one that is there is replaced.")
flags.DEFINE_string("npz", None, "Also write images and labels to this new .npz file.")

# Of a sheet with one column per class.
MOST_COLUMNS = 20


def main(argv: list[str]) -> None:
    from haim_tf import presets

    output = check_sheet(FLAGS.output)
    npz = check_arrays(FLAGS.npz) if FLAGS.npz is not None else None
    temperature, top_p = (parse_numbers(name, FLAGS[name].value) for name in ("temperature", "top_p"))
    model = presets.load(FLAGS.model, weights=True)
    turns = choose_labels(FLAGS.labels, model.num_classes, model.class_names)
    if turns and not FLAGS.labels and len(turns) > FLAGS.num:
        turns = model.draw_labels(FLAGS.num, FLAGS.seed).tolist()
    labels = turns and [turns[i % len(turns)] for i in range(FLAGS.num)]
    images = model.sample(
        FLAGS.num,
        labels,
        FLAGS.seed,
        temperature,
        top_p,
        guidance=FLAGS.guidance,
        batch_size=FLAGS.batch_size,
        verbose=True,
    )
    columns = FLAGS.columns
    if columns is None and turns and 1 < len(turns) <= min(FLAGS.num - 1, MOST_COLUMNS):
        columns = len(turns)
    captions = labels and [_sheets.class_caption(label, model.class_names) for label in labels]
    if captions and columns == len(turns):
        captions = captions[:columns]
    if npz:
        write_arrays(npz, images=images, labels=labels, class_names=model.class_names)
    _sheets.write_sheet(images, output, columns, captions)
    print(f"{FLAGS.num} images in {output}{f', and as arrays in {npz}' if npz else ''}")
