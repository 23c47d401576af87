"""The folder of an interrupted run, taken up again."""

import io
import json
import shutil

import numpy as np
from damage import damaged_bytes, damaged_json, damaged_value, leaves_alone, pick

from haim_tf.training import RunFolder

RECIPE = {"model": {"levels": []}, "seed": 0, "stages": [{"steps": 4, "learning_rate": 0.001}]}
DATA = {"source": "here", "split": "train", "images": 3, "class_names": ["a"], "sha256": "0" * 64}
META = {
    "position": {"stage": 0, "step": 2},
    "rows": [{"stage": 0, "step": 2, "seconds": 1.0, "loss": 0.5}],
    "model": {"image_shape": [4, 4, 1]},
}


class Runs:
    """One of its files damaged or missing."""

    LIMIT = 60

    def __init__(self, folder):
        self.folder = folder / "run"

    def attempt(self, rng):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        np.savez(buffer := io.BytesIO(), meta=np.array(json.dumps(META)), model0=np.zeros(3))
        content = {
            "recipe.json": json.dumps(RECIPE).encode(),
            "data.json": json.dumps(DATA).encode(),
            "checkpoint.npz": buffer.getvalue(),
        }
        name = pick(rng, list(content))
        if name != "checkpoint.npz":
            content[name] = damaged_json(rng, json.loads(content[name]))
        elif rng.random() < 0.5:
            content[name] = damaged_bytes(rng, content[name])
        else:
            meta = json.dumps(damaged_value(rng, META))
            np.savez(buffer := io.BytesIO(), meta=np.array(meta), model0=np.zeros(3))
            content[name] = buffer.getvalue()
        if rng.random() < 0.05:
            del content[name]
        for name, part in content.items():
            (self.folder / name).write_bytes(part)
        with leaves_alone(self.folder, ["lock"]), RunFolder(self.folder, RECIPE, data=DATA) as run:
            assert run.position["stage"] >= 0 and run.position["step"] >= 0
            assert sum(row["seconds"] for row in run.rows) >= 0
