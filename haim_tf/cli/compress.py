"""Compresses images without loss, to one .haim file each.

`haim_tf decompress` gives the same pixels back as PNG, with the same model and on a machine with the same
arithmetic. Images larger than the model's are cut into tiles. What a picture holds besides its pixels is not
kept; one that would look otherwise without it (transparency, an EXIF orientation) is refused.
"""

from absl import flags

FLAGS = flags.FLAGS
ARGUMENTS = "IMAGE..."
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("output", None, "Folder for the files, made if it is not there.", required=True)
flags.DEFINE_list(
    "labels",
    None,
    "Classes of a class-conditional model, numbers or names; image i gets the label i modulo their number. "
    "By default each tile gets its most probable one.",
)


def main(argv: list[str]) -> None:
    from pathlib import Path

    from haim_tf import compression, presets
    from haim_tf.backend import require_tensorflow
    from haim_tf.cli._labels import choose_labels
    from haim_tf.cli._output import check_outputs, write_outputs
    from haim_tf.data import printable, read_image

    require_tensorflow("compression")
    outputs = check_outputs(argv[1:], FLAGS.output, ".haim")
    model = presets.load(FLAGS.model, weights=True)
    labels = None
    if FLAGS.labels:
        turns = choose_labels(FLAGS.labels, model.num_classes, model.class_names)
        labels = [turns[i % len(turns)] for i in range(len(outputs))]
    images = [read_image(path, model.image_shape[2]) for path in argv[1:]]
    name = printable(Path(FLAGS.model).name)
    files = compression.compress(model, images, labels, name, verbose=True)
    write_outputs(outputs, files)
    bits, values = 8 * sum(map(len, files)), sum(image.size for image in images)
    print(f"{len(files)} images in {FLAGS.output}: {bits // 8:,} bytes, {bits / values:.3f} bits/dim")
