"""Measures completions with and without candidates; the table and the picture in docs/likelihood.md.

    python benchmarks/completion.py --model=fashion_mnist28 --data=fashion_mnist --split=val \\
        --output=docs/completions.png

For every mask and number of candidates: the squared error of the mean of an image's completions in the
pixels held back (units of -1..1), and the likelihood of those pixels under the completions' codes, minus the
log of the mean over completions of p(held-back pixels given codes), in bits per value.
"""

import time

import numpy as np
from absl import app, flags

import haim_tf
from haim_tf import completion
from haim_tf.class_names import relabelled
from haim_tf.cli._output import check_sheet

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "fashion_mnist28", "Name of a model, or a preset folder.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data.")
flags.DEFINE_integer("num", 32, "How many images, the first ones of the split.", lower_bound=1)
flags.DEFINE_integer("completions", 4, "Completions of each image.", lower_bound=1)
flags.DEFINE_multi_integer("candidates", [1, 4, 16], "Numbers of candidates.")
flags.DEFINE_integer("shown", 8, "Images in the picture.", lower_bound=1)
flags.DEFINE_bool("labels", True, "Whether to give the labels.")
flags.DEFINE_string("output", None, "PNG sheet, an image and a mask a row.")


def main(argv):
    output = check_sheet(FLAGS.output) if FLAGS.output else None
    model = haim_tf.load(FLAGS.model)
    source = haim_tf.data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    source = relabelled(source, model) if FLAGS.labels else source
    chosen = np.arange(min(FLAGS.num, len(source)))
    images = source.images[chosen]
    labels = source.labels[chosen] if model.num_classes and FLAGS.labels else None
    sheet, names = [], []
    print(f"{len(images)} images of {source.name}, {FLAGS.split}; {FLAGS.completions} completions each\n")
    print(
        "| known | candidates | squared error | bits per value | seconds per completion |\n"
        "|---|---|---|---|---|"
    )
    for number, (name, mask) in enumerate(masks(*model.image_shape[:2]).items()):
        row = {}
        for candidates in FLAGS.candidates:
            start = time.perf_counter()
            drawn, codes = completion.complete(
                model,
                images,
                mask,
                labels=labels,
                candidates=candidates,
                num=FLAGS.completions,
                return_codes=True,
                verbose=False,
            )
            seconds = (time.perf_counter() - start) / drawn[..., 0, 0, 0].size
            if not (drawn[:, :, mask] == images[:, None, mask]).all():
                raise SystemExit("a known pixel changed")
            difference = (drawn.mean(axis=1) - images)[:, ~mask] / 127.5
            bits = -held_back(model, images, codes[0], labels, mask) / (np.log(2.0) * difference[0].size)
            print(
                f"| {name} | {candidates} | {np.square(difference).mean():.4f} | {bits.mean():.3f} | "
                f"{seconds:.2f} |",
                flush=True,
            )
            row[candidates] = drawn
        names.append(name)
        for i in range(min(FLAGS.shown, len(images))):
            if i % len(masks(*model.image_shape[:2])) == number:
                known = np.where(mask[..., None], images[i], np.uint8(128))
                parts = [row[c][i, : min(3, FLAGS.completions)] for c in FLAGS.candidates]
                sheet.append(np.concatenate([images[i][None], known[None], *parts]))
    if output:
        sheet = np.stack(sheet)
        haim_tf.data.save_grid(sheet.reshape(-1, *model.image_shape), output, columns=sheet.shape[1])
        print(f"\nColumns of {output}: original, known, completions by {FLAGS.candidates} candidates.")


def masks(height, width):
    """By name, bool `(height, width)`, true where a pixel is known."""
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    inside = (np.abs(rows - 0.5) < 0.22) & (np.abs(columns - 0.5) < 0.22)
    return {
        "upper half": np.broadcast_to(rows < 0.5, (height, width)),
        "lower half": np.broadcast_to(rows >= 0.5, (height, width)),
        "all but a hole": ~inside,
        "a quarter, at random": np.random.default_rng(0).random((height, width)) < 0.25,
    }


def held_back(model, images, codes, labels, mask):
    """log of the mean over completions of p(held-back values given codes and label), nats `(B,)`."""
    logs = []
    for completed in codes.swapaxes(0, 1):
        parts = []
        for here in (slice(i, i + 32) for i in range(0, len(images), 32)):
            told = model.conditioning(0, completed[here], None if labels is None else labels[here])
            parts.append(model.decoders[0].log_prob(model.elements(images[here]), **told))
        logs.append((np.concatenate([np.asarray(p) for p in parts]) * ~mask).sum(axis=(1, 2)))
    return np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))


if __name__ == "__main__":
    app.run(main)
