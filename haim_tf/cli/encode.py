"""Encodes images into the codes of every level, in an .npz file.

It holds codes_1 (the finest), ..., int32 (N, h, w); where the data has them, labels and class_names, those of
the model, found by name, or the data's own where the model does not have all of its classes; and the paths of
the images' files where each is a file, in whose order the rows are.
"""

from absl import flags

from haim_tf.cli._output import check_arrays, write_arrays

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "train", "Split of the data, e.g. train[:90%].")
flags.DEFINE_integer(
    "num", None, "How many images, the first ones of the split; all by default.", lower_bound=1
)
flags.DEFINE_integer(
    "batch_size", 256, "Images encoded between two steps of the progress bar.", lower_bound=1
)
flags.DEFINE_string("output", "codes.npz", "The .npz file, a new one.")


def main(argv: list[str]) -> None:
    import sys

    import numpy as np

    from haim_tf import data, presets, progress
    from haim_tf.class_names import relabelled

    output = check_arrays(FLAGS.output)
    model = presets.load(FLAGS.model, weights=True)
    if not model.num_levels:
        raise ValueError(f"{FLAGS.model} has no levels: there are no codes")
    source = data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    try:
        source = relabelled(source, model)
    except ValueError as error:  # Codes need no labels: these name classes of their own.
        print(f"labels stay those of the data: {error}", file=sys.stderr)
    count = min(FLAGS.num or len(source), len(source))
    chosen = source.in_file_order(np.arange(count))
    bar = progress.Bar(count, "images")
    batches = []
    for start in range(0, count, FLAGS.batch_size):
        rows = chosen[start : start + FLAGS.batch_size]
        batches.append(model.encode(source.images[rows]))
        bar.add(len(rows))
    codes = {
        f"codes_{i}": np.concatenate(grids) for i, grids in enumerate(zip(*batches, strict=True), start=1)
    }
    labels, paths = (None if known is None else known[chosen] for known in (source.labels, source.paths))
    names = None if labels is None else source.class_names
    write_arrays(output, **codes, labels=labels, class_names=names, paths=paths)
    print(f"codes of {count} images in {output}: {', '.join(f'{k} {v.shape}' for k, v in codes.items())}")
