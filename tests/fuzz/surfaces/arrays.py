"""`.npy` and `.npz` files of images, labels and class names."""

import io

import numpy as np
from damage import damaged_bytes, pick

from haim_tf import data

DTYPES = ("uint8", "uint8", "int8", "int64", "float16", "float32", "float64", "bool", "complex64", "S3", "U2")
SHAPES = ((3, 4, 4, 1), (3, 4, 4, 3), (3, 4, 4), (4, 4), (3,), (), (0, 4, 4, 1), (3, 4, 4, 2), (3, 0, 4, 1))
NAMES = (("images", "labels"), ("x_train", "y_train"), ("x_test", "labels"), ("a", "b"))
SPLITS = ("train", "train", "test", "all[:2]", "train[50%:]", "train[9:]", "train[", "val[:0]")


def odd_array(rng):
    """Numbers or texts of a random type and shape."""
    numbers = np.asarray(rng.integers(0, 256, pick(rng, SHAPES)))
    return numbers.astype(pick(rng, DTYPES)) if rng.random() < 0.9 else numbers - 100


def odd_labels(rng):
    return pick(rng, [[0, 1, 2], [[0], [1], [0]], [0, 1], [-1, 0, 1], [0.5, 1, 2], [2**40, 0, 0], "abc", 3])


class Arrays:
    """One file, loaded whole or in a slice."""

    LIMIT = 60

    def __init__(self, folder):
        self.folder = folder

    def attempt(self, rng):
        good = rng.integers(0, 256, (3, 4, 4, 1), "uint8")
        images = good if rng.random() < 0.5 else odd_array(rng)
        suffix = pick(rng, ["npy", "npz"])
        buffer = io.BytesIO()
        if suffix == "npy":
            np.save(buffer, images)
        else:
            names = pick(rng, NAMES)
            arrays = {names[0]: images, names[1]: [0, 1, 2] if rng.random() < 0.5 else odd_labels(rng)}
            if rng.random() < 0.3:
                arrays["class_names"] = np.asarray(pick(rng, [["a", "b", "c"], [b"\xff", b"b"], 3, [1.5]]))
            np.savez(buffer, **arrays)
        path = self.folder / f"images.{suffix}"
        content = buffer.getvalue()
        path.write_bytes(damaged_bytes(rng, content) if rng.random() < 0.6 else content)
        found = data.load(path, pick(rng, SPLITS), image_shape=pick(rng, [None, None, (2, 2, 1), (8, 8, 3)]))
        assert found.images[:].dtype == np.uint8 and len(found.images[:]) == len(found)
