"""Which scores tell odd pictures from ordinary ones: the area under the ROC curve of each.

    python benchmarks/odd_pictures.py --model=plant_village128 --data=leaves --output=odd.json \\
        --others=tiny_imagenet64,fashion_mnist --picture=odd.png

Ordinary pictures are held-out ones of the model's own kind. Odd are pictures of other data sets, brought
to the model's size, and the ordinary ones with a square patch of another one pasted in, or filled with the
mean colour. Scores are bits/dim, labels summed over: `total`, level by level, `codes` (every level but the
pixels), and `total - PNG`, bits/dim less those of the picture's PNG file (Serra et al. 2020: simple
pictures are likely under any model). The area is the probability that an odd picture has the higher score,
a half where the score tells nothing.
"""

import io

import numpy as np
from absl import app, flags
from PIL import Image

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "Name of a model, or a preset folder.", required=True)
flags.DEFINE_string("data", None, "Ordinary pictures: TFDS name, folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data.")
flags.DEFINE_list("others", [], "Odd pictures: data sets likewise, their split val.")
flags.DEFINE_integer("num", 1000, "Pictures of each kind, drawn at random.", lower_bound=1)
flags.DEFINE_float("patch", 0.25, "Side of the patches, as a share of the picture's.", 0.0, 1.0)
flags.DEFINE_integer("batch_size", 32, "Pictures in a batch.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of what is drawn, and where patches are.", lower_bound=0)
flags.DEFINE_string("output", None, "JSON file for the figures, a new one.", required=True)
flags.DEFINE_string("picture", None, "PNG sheet, one row of pictures per kind.")


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}; everything is a flag, see --help")
    import measuring

    import haim_tf
    from haim_tf import files

    output = files.check_new_file(FLAGS.output)
    model = haim_tf.load(FLAGS.model)
    rng = np.random.default_rng(FLAGS.seed)
    ordinary = drawn(FLAGS.data, FLAGS.split, model.image_shape, rng)
    kinds = {name: drawn(name, "val", model.image_shape, rng) for name in FLAGS.others}
    kinds["patch pasted"] = patched(ordinary, FLAGS.patch, rng, paste=True)
    kinds["patch erased"] = patched(ordinary, FLAGS.patch, rng, paste=False)
    inside = scores_of(model, ordinary)
    rows = []
    for kind, images in kinds.items():
        outside = scores_of(model, images)
        for score, values in outside.items():
            area = roc_auc(inside[score], values)
            rows.append({"odd": kind, "score": score, "area": area, "num": len(values)})
            rows[-1]["standard error"] = auc_standard_error(area, len(inside[score]), len(values))
    files.write_json(output, {"model": FLAGS.model, "data": FLAGS.data, "num": len(ordinary), "rows": rows})
    areas = {kind: {row["score"]: row["area"] for row in rows if row["odd"] == kind} for kind in kinds}
    measuring.print_table([{"odd": kind, **scores} for kind, scores in areas.items()])
    if FLAGS.picture:
        shown = min(8, *map(len, kinds.values()), len(ordinary))
        sheet = np.concatenate([images[:shown] for images in (ordinary, *kinds.values())])
        haim_tf.data.save_grid(sheet, FLAGS.picture, columns=shown)


def drawn(source, split, image_shape, rng):
    """At most `--num` images of a data set, brought to the shape, in a random order."""
    from haim_tf import data

    images = data.load(source, split)
    rows = rng.permutation(len(images))[: FLAGS.num]
    return np.stack([data.image_files.fit_array(image, image_shape) for image in images.images[rows]])


def patched(images, share, rng, paste):
    """Images with a square filled from the same place of another one, or with their own mean colour."""
    height, width = images.shape[1:3]
    side = max(1, round(share * min(height, width)))
    others = np.roll(images, 1, axis=0)
    images = images.copy()
    for image, other in zip(images, others, strict=True):
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        filling = other[y : y + side, x : x + side] if paste else image.mean(axis=(0, 1)).round()
        image[y : y + side, x : x + side] = filling
    return images


def scores_of(model, images):
    """By name, bits/dim (B,): the higher, the odder the model finds an image."""
    from haim_tf.evaluation import scores

    bits = scores.bits_per_dim(model, scores.marginal_log_probs(model, images, FLAGS.batch_size))
    names = [f"level {level}" for level in range(1, model.num_levels + 1)] + ["prior"]
    found = {"total": bits.sum(axis=1), **dict(zip(names, bits.T, strict=True))}
    if model.num_levels:
        found["codes"] = bits[:, 1:].sum(axis=1)
    return {**found, "total - PNG": found["total"] - png_bits(images)}


def png_bits(images):
    """Bits/dim of each image as a PNG file."""
    sizes = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", optimize=True)
        sizes.append(8 * len(file.getvalue()) / image.size)
    return np.array(sizes)


def roc_auc(inside, outside):
    """The area under the ROC curve of a score that is to be higher outside: the share of pairs in which it is
    (equal ones count half)."""
    ordered = np.sort(inside)
    below, up_to = (np.searchsorted(ordered, outside, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(inside)))


def auc_standard_error(area, num_inside, num_outside):
    """Of an area under the ROC curve (Hanley and McNeil 1982)."""
    both_outside, both_inside = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area)
    spread += (num_outside - 1) * (both_outside - area**2) + (num_inside - 1) * (both_inside - area**2)
    return float(np.sqrt(spread / (num_inside * num_outside)))


if __name__ == "__main__":
    app.run(main)
