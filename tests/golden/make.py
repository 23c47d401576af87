"""Writes what test_golden.py holds the package to: run it where the answers are known to be right.

    python tests/golden/make.py models      # models.npz: codes, bits/dim and samples of every zoo model
    python tests/golden/make.py training    # training.npz: figures of 20 steps, which JAX is to repeat
    python tests/golden/make.py version     # VERSION/: a preset, a .keras file and a compressed picture

`models` is made anew when weights of the zoo are replaced, `training` when those of `debug` are; `version`
once for a release.
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
            codes = grids[index] if index < model.num_levels else None
            given = model.conditioning(index, codes, None if labels is None else labels.astype("int32"))
            grid, _ = model.sampler(index)(seeds, 0.9, 0.95, **given)
            arrays[f"{name}/drawn_{index}"] = grid.astype("uint8")
    np.savez_compressed(FOLDER / "models.npz", **arrays)
    print(FOLDER / "models.npz", (FOLDER / "models.npz").stat().st_size)


def training():
    rows = steps_of_training()
    arrays = {name: np.array([row[name] for row in rows], "float32") for name in rows[0]}
    np.savez_compressed(FOLDER / "training.npz", **arrays)
    print(FOLDER / "training.npz", (FOLDER / "training.npz").stat().st_size)


def steps_of_training(count=20):
    """The metrics of the first steps of training the model `debug`, dicts: nothing in them is drawn by a
    generator of the backend's own, and every part's gradients are clipped."""
    source = haim_tf.load("debug")
    arguments = source.arguments
    for level in arguments["levels"]:
        level["revive_below"] = 0.0
    model = haim_tf.HierarchicalModel(**arguments)
    model.set_weights(source.get_weights())
    for autoencoder in model.autoencoders:
        quantizer = autoencoder.quantizer
        quantizer.initialized.assign(1.0)
        quantizer.counts.assign(np.full(quantizer.counts.shape, 8.0))
        quantizer.sums.assign(8.0 * keras.ops.convert_to_numpy(quantizer.codebook))
    model.compile(keras.optimizers.Adam(0.003), clip_norm=0.3)
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.2, 1.0, (8 * count, 1, 1, 1))
    images = np.cumsum(rng.normal(0, 12, (8 * count, *model.image_shape)), axis=1) * scale + 128
    images, labels = np.clip(images, 0, 255).astype("uint8"), rng.integers(10, size=8 * count)
    return [
        model.train_on_batch(images[i : i + 8], labels[i : i + 8], return_dict=True)
        for i in range(0, 8 * count, 8)
    ]


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
    {"models": models, "training": training, "version": version}[sys.argv[1]]()
