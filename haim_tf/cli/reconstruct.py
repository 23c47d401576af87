"""Reconstructs images from their codes, into a PNG sheet beside the originals.

A row is an image: the original, then level by level what the main decoders sample from its codes, what the
auxiliary decoders make of them, or both.
"""

from absl import flags

from haim_tf.cli import _sheets
from haim_tf.cli._numbers import parse_numbers
from haim_tf.cli._output import check_sheet

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_sheets)
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data, e.g. val[:1000].")
flags.DEFINE_integer("num", 8, "How many images, the first ones of the split.", lower_bound=1)
flags.DEFINE_integer(
    "level", 0, "Level whose codes are kept, 1 the finest; 0: every level in turn.", lower_bound=0
)
flags.DEFINE_enum("decoder", "both", ["main", "auxiliary", "both"], "The decoders to reconstruct with.")
flags.DEFINE_bool("use_labels", True, "Tell main decoders the data's labels, where they take any.")
flags.DEFINE_integer("seed", 0, "Seed of what the main decoders sample.")
flags.DEFINE_list(
    "temperature",
    None,
    "Of the main decoders; one number, or, as for sample, one per level, finest first, and the prior. By "
    "default the preset's own values.",
)
flags.DEFINE_list(
    "top_p",
    None,
    "Mass of the nucleus that the main decoders sample from; one number or several. By default the preset's "
    "own values.",
)
flags.DEFINE_string("output", "reconstructions.png", "The sheet, a .png file; one that is there is replaced.")


def main(argv: list[str]) -> None:
    import numpy as np

    from haim_tf import data, presets
    from haim_tf.class_names import relabelled

    output = check_sheet(FLAGS.output)
    sampling = {name: parse_numbers(name, FLAGS[name].value) for name in ("temperature", "top_p")}
    model = presets.load(FLAGS.model, weights=True)
    if not model.num_levels:
        raise ValueError(f"{FLAGS.model} has no levels: there are no codes to reconstruct from")
    levels = [FLAGS.level] if FLAGS.level else range(1, model.num_levels + 1)
    decoders = ["main", "auxiliary"] if FLAGS.decoder == "both" else [FLAGS.decoder]
    source = data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    chosen = np.arange(min(FLAGS.num, len(source)))
    labels = None
    told = model.decodes_by_label()
    if FLAGS.use_labels and told and source.labels is not None:
        labels = relabelled(source, model).labels[chosen]
    originals = source.images[chosen]
    columns, names = [originals], ["original"]
    for level in levels:
        for decoder in decoders:
            options = {**sampling, "labels": labels, "verbose": True} if decoder == "main" else {}
            columns.append(model.reconstruct(originals, level, decoder, seed=FLAGS.seed, **options))
            names.append(f"level {level} {decoder}")
    sheet = np.stack(columns, axis=1).reshape(-1, *model.image_shape)
    _sheets.write_sheet(sheet, output, len(columns), names)
    print(f"{len(originals)} images in {output}; columns: {', '.join(names)}")
