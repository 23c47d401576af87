"""Preset folders, loaded whole."""

import hashlib
import json
import shutil

import keras
from damage import damaged_bytes, damaged_json, damaged_value, leaves_alone, pick

import haim_tf
from haim_tf import presets

NETWORK = {"width": 4, "blocks": 1}
LEVEL = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, **NETWORK, "decoder": NETWORK}


def tiny_model(seed=0):
    """A model of one level that is built fast."""
    keras.utils.set_random_seed(seed)
    return haim_tf.HierarchicalModel((4, 4, 1), [LEVEL], NETWORK, num_classes=3, mixtures=2)


class Presets:
    """A preset of a tiny model, one of its files damaged; of weights also with a checksum that fits them."""

    LIMIT = 120

    def __init__(self, folder):
        self.folder = folder / "preset"
        model = tiny_model()
        model.class_names = ["a", "b", "c"]
        model.save_to_preset(self.folder)
        self.files = {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def attempt(self, rng):
        content = dict(self.files)
        name = pick(rng, [presets.CONFIG, presets.CONFIG, presets.METADATA, presets.WEIGHTS])
        if name == presets.WEIGHTS:
            content[name] = damaged_bytes(rng, content[name])
            if rng.random() < 0.7:
                metadata = json.loads(content[presets.METADATA])
                metadata["sha256"] = hashlib.sha256(content[name]).hexdigest()
                content[presets.METADATA] = json.dumps(metadata).encode()
        elif rng.random() < 0.7:
            content[name] = json.dumps(damaged_value(rng, json.loads(content[name]))).encode()
        else:
            content[name] = damaged_json(rng, json.loads(content[name]))
        if rng.random() < 0.05:
            del content[name]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, part in content.items():
            (self.folder / name).write_bytes(part)
        with leaves_alone(self.folder), leaves_alone(self.folder.parent):
            model = haim_tf.load(self.folder, weights=pick(rng, ["auto", True]))
            # What could be loaded can be saved.
            presets.check_savable(model, self.folder.with_name("saved"))
