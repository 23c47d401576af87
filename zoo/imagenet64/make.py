"""Adds a second sheet of samples to what export/publish_preset.py made here, and writes the card again.

python zoo/imagenet64/make.py
"""

import json
from pathlib import Path

import haim_tf

FOLDER = Path(__file__).parent
TEMPERATURE = [0.6, 1.0, 1.0]
CAPTION = "Samples with the pixels at temperature 0.6 (codes and prior at 1), seed 0, none left out."


def main():
    model = haim_tf.load(FOLDER)
    metadata = haim_tf.presets.read(FOLDER)[1]
    metadata |= json.loads((FOLDER / "about.json").read_text()) | {"training": metadata["training"]}
    metadata["pictures"]["samples_cool.png"] = CAPTION
    model.save_to_preset(FOLDER, metadata=metadata, precision="float16", overwrite=True)
    images = model.sample(80, seed=0, temperature=TEMPERATURE, batch_size=40, verbose=False)
    haim_tf.data.save_grid(images, FOLDER / "samples_cool.png", columns=16)


if __name__ == "__main__":
    main()
