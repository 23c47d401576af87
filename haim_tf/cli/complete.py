"""Completes images of which some pixels are known, into a PNG sheet.

A row is an image: the original, what is known of it (the rest grey), and its completions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from haim_tf.cli import _sheets
from haim_tf.cli._output import check_arrays, check_sheet, write_arrays

if TYPE_CHECKING:
    import numpy as np

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_sheets)
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data, e.g. val[:1000].")
flags.DEFINE_integer("num", 8, "How many images, the first ones of the split.", lower_bound=1)
flags.DEFINE_integer(
    "rows", None, "The first so many rows are known; half of them by default.", lower_bound=0
)
flags.DEFINE_string(
    "mask",
    None,
    "Instead of --rows, an image file of the model's size, neither black nor transparent where a pixel is "
    "known.",
)
flags.DEFINE_bool(
    "use_labels", True, "Use the data's labels, by the names of classes; otherwise they count as unknown."
)
flags.DEFINE_integer("completions", 4, "Completions of each image.", lower_bound=1)
flags.DEFINE_integer("candidates", 16, "Candidates that each completion is chosen from.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "The same seed gives the same completions.")
flags.DEFINE_integer("batch_size", 64, "Candidates drawn at once.", lower_bound=1)
flags.DEFINE_string("output", "completions.png", "The sheet, a .png file; one that is there is replaced.")
flags.DEFINE_string("npz", None, "Also write images, mask and completions to this new .npz file.")


def main(argv: list[str]) -> None:
    import numpy as np

    from haim_tf import data, presets
    from haim_tf.checks import require_int
    from haim_tf.class_names import relabelled

    output = check_sheet(FLAGS.output)
    npz = check_arrays(FLAGS.npz) if FLAGS.npz is not None else None
    if FLAGS.mask is not None and FLAGS.rows is not None:
        raise ValueError("--mask and --rows exclude each other")
    model = presets.load(FLAGS.model, weights=True)
    height, width, _ = model.image_shape
    if FLAGS.mask is None:
        rows = height // 2 if FLAGS.rows is None else require_int("--rows", FLAGS.rows, low=0, high=height)
        mask = np.repeat(np.arange(height)[:, None] < rows, width, axis=1)
    else:
        mask = read_mask(FLAGS.mask)
    source = data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    chosen = np.arange(min(FLAGS.num, len(source)))
    labels = None
    if FLAGS.use_labels and model.num_classes and source.labels is not None:
        labels = relabelled(source, model).labels[chosen]
    images = source.images[chosen]
    completions = model.complete(
        images,
        mask,
        labels=labels,
        seed=FLAGS.seed,
        candidates=FLAGS.candidates,
        num=FLAGS.completions,
        batch_size=FLAGS.batch_size,
        verbose=True,
    )
    names = ["original", "known", *(f"completion {i + 1}" for i in range(FLAGS.completions))]
    if npz:
        write_arrays(npz, images=images, mask=mask, completions=completions, labels=labels)
    _sheets.write_sheet(sheet(images, mask, completions), output, len(names), names)
    arrays = f", and as arrays in {npz}" if npz else ""
    print(
        f"{len(images)} images in {output}{arrays}; columns: original, known, {FLAGS.completions} completions"
    )


def read_mask(path: str) -> np.ndarray:
    """Which pixels of an image file, grey or coloured, are neither black nor transparent, bool `(H, W)`."""
    import numpy as np
    from PIL import Image

    from haim_tf import files
    from haim_tf.data.image_files import turned
    from haim_tf.data.reading import reading

    path = files.expanded(path)
    with reading(path, "an image"), Image.open(path) as image:
        if turned(image):
            raise ValueError("its EXIF orientation turns it: turn its pixels and take that out first")
        if image.mode == "F":
            return np.asarray(image) != 0
        pixels = np.asarray(image.convert("RGBA"))
    return pixels[..., :3].any(axis=-1) & (pixels[..., 3] > 0)


def sheet(images: np.ndarray, mask: np.ndarray, completions: np.ndarray) -> np.ndarray:
    """One row per image: the original, its known pixels (the rest grey), its completions `(num, H, W, C)`."""
    import numpy as np

    known = np.where(mask[..., None], images, np.uint8(128))
    rows = np.concatenate([images[:, None], known[:, None], completions], axis=1)
    return rows.reshape(-1, *images.shape[1:])
