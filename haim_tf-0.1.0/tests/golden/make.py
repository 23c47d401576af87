"""Writes what test_golden.py holds the package to: run it where the answers are known to be right.

    python tests/golden/make.py models      # models.npz: codes, bits/dim and samples of every zoo model
    python tests/golden/make.py version     # VERSION/: a preset, a .keras file and a compressed picture

`models` is made anew when weights of the zoo are replaced; `version` once for a release.
"""

import pathlib
import sys

import keras
import numpy as np

import haim_tf

FOLDER = pathlib.Path(__file__).parent
IMAGES = 3


def models():
    arrays = {}
    for name in haim_tf.list_models(pretrained=True):
        model = haim_tf.load(name)
        labels = np.arange(IMAGES) if model.num_classes else None
        images = model.sample(IMAGES, labels, seed=7, temperature=1.0, top_p=1.0)
        arrays[f"{name}/images"] = images
        for level, codes in enumerate(model.encode(images), start=1):
            arrays[f"{name}/codes_{level}"] = codes.astype("uint8")
        for part, bits in model.bits_per_dim(images, labels, per_level=True).items():
            arrays[f"{name}/bits/{part}"] = bits
        # Grids as each network draws them, level by level, from the codes of the images above.
        grids = [*model.encode(images)]
        for index in range(model.num_levels + 1):
            seeds = np.stack([np.full(IMAGES, 3), np.arange(IMAGES)], axis=1).astype("int32")
            given = {"codes": grids[index]} if index < model.num_levels else {}
            if index == model.num_levels and labels is not None:
                given["labels"] = labels.astype("int32")
            grid, _ = model.sampler(index)(seeds, 0.9, 0.95, **given)
            arrays[f"{name}/drawn_{index}"] = grid.astype("uint8")
    np.savez_compressed(FOLDER / "models.npz", **arrays)
    print(FOLDER / "models.npz", (FOLDER / "models.npz").stat().st_size)


def version():
    from haim_tf.compression import compress

    folder = FOLDER / haim_tf.__version__
    folder.mkdir()
    keras.utils.set_random_seed(0)
    model = haim_tf.load("debug")
    model.class_names = [f"class {i}" for i in range(model.num_classes)] if model.num_classes else None
    model.save_to_preset(folder / "preset", metadata={"pretrained": True})
    model.compile()
    model.save(folder / "model.keras")
    images = model.sample(2, labels=0, seed=5)
    np.savez(folder / "expected.npz", images=images, log_prob=model.log_prob(images, 0))
    (folder / "picture.haim").write_bytes(compress(model, [images[0]], labels=0, name="debug")[0])


if __name__ == "__main__":
    {"models": models, "version": version}[sys.argv[1]]()
