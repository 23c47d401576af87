"""Compares lossless compression by a model with PNG and WebP on the same images: docs/likelihood.md.

    python benchmarks/compression.py --model=fashion_mnist28 --data=fashion_mnist --split=val --num=500

Every image must come back exactly, every file must stay within 1 % and 64 bytes of the model's bound, and
each of the damaged files must be an error, or the script fails.
"""

import io
import time

import numpy as np
from absl import app, flags
from PIL import Image

import haim_tf
from haim_tf import compression
from haim_tf.evaluation import label_log_probs

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "fashion_mnist28", "Name of a model, or a preset folder.")
flags.DEFINE_string("data", None, "TFDS name, image folder, .npz or .npy file.", required=True)
flags.DEFINE_string("split", "val", "Split of the data.")
flags.DEFINE_integer("num", 500, "How many images, the first ones of the split.", lower_bound=1)
flags.DEFINE_integer("damaged", 1000, "Damaged files to try.", lower_bound=0)


def main(argv):
    model = haim_tf.load(FLAGS.model)
    source = haim_tf.data.load(FLAGS.data, FLAGS.split, image_shape=model.image_shape)
    images = source.images[np.arange(min(FLAGS.num, len(source)))]
    compression.decompress(model, compression.compress(model, images[:64]))  # Compiles.

    rows = []
    start = time.perf_counter()
    files = compression.compress(model, images, name=FLAGS.model)
    middle = time.perf_counter()
    decoded = compression.decompress(model, files)
    end = time.perf_counter()
    if not all((a == b).all() for a, b in zip(decoded, images, strict=True)):
        raise SystemExit("an image did not come back exactly")
    words = [4 * len(compression.unpack(file).words) for file in files]
    sizes = np.array([len(file) for file in files])
    times = len(images) / (middle - start), len(images) / (end - middle)
    rows.append((f"haim_tf, `{FLAGS.model}`", sizes.sum(), *times))
    rows.append(("haim_tf without headers", sum(words), None, None))

    bound = _bound(model, images)
    rows.append(("the model's bound", bound.sum() / 8, None, None))
    excess = sizes - (1.01 * bound / 8 + 64)
    if excess.max() > 0:
        raise SystemExit(f"a file is {excess.max():.1f} bytes longer than 1 % and 64 bytes above the bound")

    sheet = images.reshape(1, -1, *images.shape[2:])
    for name, options in {
        "PNG": {"format": "PNG", "optimize": True},
        "WebP lossless": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
    }.items():
        rows.append((name, *_measure(images, options)))
        rows.append((f"{name}, all images in one", _measure(sheet, options)[0], None, None))

    print(f"{len(images)} images of {source.name}, {FLAGS.split}; {model.image_shape}\n")
    print("| format | bits/dim | images/s in | images/s out |\n|---|---|---|---|")
    for name, size, *speeds in rows:
        cells = ["" if s is None else f"{s:,.0f}" if s >= 20 else f"{s:.2g}" for s in speeds]
        print(f"| {name} | {8 * size / images.size:.3f} | {' | '.join(cells)} |")
    relative, header = 8 * sum(words) / bound.sum() - 1, np.mean(sizes - words)
    print(
        f"\nEvery image came back exactly. Coded data: {relative:+.2%} against the bound; headers: "
        f"{header:.0f} bytes a file; the furthest file: {(sizes - bound / 8).max():.0f} bytes above bound, "
        f"with 1 % and 64 bytes allowed. {_damage(model, files)}"
    )


def _bound(model, images):
    """Bits of each image by the model's bound, with its most probable label and the bits to name it."""
    if not model.num_classes:
        return -model.log_prob(images) / np.log(2.0)
    return -label_log_probs(model, images).max(axis=1) / np.log(2.0) + np.log2(model.num_classes)


def _measure(images, options):
    """Bytes, and images a second in and out."""
    files = []
    start = time.perf_counter()
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, **options)
        files.append(buffer)
    middle = time.perf_counter()
    for file, image in zip(files, images, strict=True):
        # WebP knows no grey pictures.
        decoded = np.asarray(Image.open(file).convert("L" if image.shape[2] == 1 else "RGB"))
        if not (decoded.reshape(image.shape) == image).all():
            raise SystemExit(f"{options} changed an image")
    end = time.perf_counter()
    size = sum(len(file.getvalue()) for file in files)
    return size, len(images) / (middle - start), len(images) / (end - middle)


def _damage(model, files):
    rng = np.random.default_rng(0)
    for i in range(FLAGS.damaged):
        data = bytearray(files[i % len(files)])
        place = int(rng.integers(len(data)))
        if i % 2:
            data = data[:place]
        else:
            data[place] ^= int(rng.integers(1, 256))
        try:
            compression.decompress(model, [bytes(data)])
        except ValueError:
            continue
        raise SystemExit(f"damaged file {i} was decoded")
    return f"{FLAGS.damaged} damaged or truncated files: an error each."


if __name__ == "__main__":
    app.run(main)
