"""Makes this folder: a tiny model with random weights, for tests. Run it as `python zoo/debug/make.py`."""

from pathlib import Path

import keras

import haim_tf

FOLDER = Path(__file__).parent
METADATA = {
    "description": "A tiny model with **random weights**, for tests of what loads and runs models.",
    "pretrained": False,
    "class_names": "zero one two three four five six seven eight nine".split(),
    "dataset": {"name": "none", "terms": "none: no data went into the weights"},
    "training": {"command": "python zoo/debug/make.py", "cost": "none: random initial weights"},
    "limits": ["Its samples are noise, its codes mean nothing."],
    "pictures": {"samples.png": "Samples, a column a class: noise, as they should be."},
}


def main():
    keras.utils.set_random_seed(0)
    decoder = {"width": 4, "blocks": 1, "heads": 1, "condition_width": 4, "condition_blocks": 1}
    level = {
        "downsampling": 2,
        "codebook_size": 16,
        "code_dim": 4,
        "width": 4,
        "blocks": 1,
        "decoder": decoder,
    }
    model = haim_tf.HierarchicalModel(
        image_shape=(16, 16, 3),
        levels=[level, level],
        prior={"width": 4, "blocks": 1, "heads": 1, "attention": [0]},
        num_classes=10,
        mixtures=2,
    )
    # A fresh network predicts nearly the same whatever it sees; tests want every input to tell.
    for network in model.networks:
        for weight in network.weights:
            if len(weight.shape) > 1:
                weight.assign(keras.random.normal(weight.shape, stddev=0.3))
    model.save_to_preset(FOLDER, metadata=METADATA, overwrite=True)
    images = model.sample(40, labels=[i % 10 for i in range(40)])
    haim_tf.data.save_grid(images, FOLDER / "samples.png", columns=10)


if __name__ == "__main__":
    main()
