"""Folders of pictures, of classes, of splits, of arrays, and of none of these."""

import json
import os
import shutil

import numpy as np
from damage import damaged_bytes, damaged_json, pick

from haim_tf import data
from haim_tf.class_names import relabelled
from haim_tf.training.recipe import check_labels
from surfaces.arrays import odd_array, odd_labels
from surfaces.pictures import picture

CLASSES = ("cat", "dog", "bird", "Aves")
SPLIT_NAMES = ("train", "val", "test")
ODD_NAMES = (*CLASSES, *SPLIT_NAMES, "Train", ".hidden", "a b", "caf\udce9", "x" * 200, "-1", "folder.png")
SPLITS = ("train", "val", "all", "test[:50%]", "all[:90%]", "all[-1:]", "other", "train[0:0]")


class Named:
    """What `relabelled` asks of a model."""

    num_classes, class_names = 3, ("cat", "dog", "bird, Aves")


class Folders:
    """A folder of up to three levels, loaded, read, and brought to the classes of a model."""

    LIMIT = 60

    def __init__(self, folder):
        self.root = folder / "root"

    def attempt(self, rng):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self._fill(rng, self.root, depth=pick(rng, [0, 1, 1, 1, 2]))
        shape = pick(rng, [None, (4, 4, 1), (4, 4, 3), (4, 4, 3)])
        found = data.load(self.root, pick(rng, SPLITS), image_shape=shape)
        assert found.images[np.arange(len(found))].shape == (len(found), *found.image_shape)
        json.dumps(found.fingerprint())
        relabelled(found, Named, say=lambda text: text.encode())
        check_labels(pick(rng, [None, Named.num_classes]), found)

    def _fill(self, rng, folder, depth):
        if depth:
            names = pick(rng, [CLASSES, CLASSES, CLASSES, SPLIT_NAMES, ODD_NAMES])
            for name in dict.fromkeys(pick(rng, names) for _ in range(3)):
                (folder / name).mkdir()
                self._fill(rng, folder / name, depth - 1)
        if not depth or rng.random() < 0.1:
            for i in range(pick(rng, [0, 1, 2, 2, 3])):
                suffix, content = picture(rng, *([] if rng.random() < 0.1 else ["png", "RGB"]))
                content = damaged_bytes(rng, content) if rng.random() < 0.05 else content
                (folder / f"{i}.{suffix}").write_bytes(content)
        kind = rng.random() * 3
        if kind < 0.05:
            os.symlink(pick(rng, [folder, "nowhere", os.devnull]), folder / "link.png")
        elif kind < 0.1:
            os.mkfifo(folder / "pipe.png")
        elif kind < 0.15:
            (folder / "folder.png").mkdir()
        elif kind < 0.2:
            (folder / "empty.png").touch()
        elif kind < 0.3:
            np.save(folder / f"{pick(rng, ['train', 'val'])}_images.npy", odd_array(rng))
            np.save(folder / "train_labels.npy", odd_labels(rng))
            (folder / "classes.json").write_bytes(damaged_json(rng, ["a", "b", "c"]))
