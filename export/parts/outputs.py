"""Outputs of stages as .npz files: what they say of themselves, and weights of models to and from them."""

import contextlib
import functools
import hashlib
import json
import os
import zipfile

import numpy as np


def write_output(path, meta, arrays):
    """Writes a stage's output: a dict of JSON's values, and arrays by name."""
    from haim_tf.files import write_arrays

    write_arrays(path, {"meta": np.array(json.dumps(meta)), **arrays})


@contextlib.contextmanager
def read_output(path):
    """What a stage's output says of itself, and its arrays; a ValueError where it is something else."""
    try:
        with np.load(path) as saved:
            yield json.loads(str(saved["meta"])), saved
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be what a stage has written, and whole: {error}") from error


@functools.cache
def read_codes(path):
    """Of a preset folder or the output of the stage of codes: weights of the encoders, codebooks and
    auxiliary decoders by part, and the codebooks' sizes."""
    from haim_tf import presets

    if os.path.isdir(path):
        model = presets.load(path)
        return weights_of(model, model.parts_named(["codes"])), model.codebook_sizes
    with read_output(path) as (meta, saved):
        parts = {name: [saved[f"{name}/{i}"] for i in range(n)] for name, n in meta["parts"].items()}
        return parts, meta["sizes"]


def digest(codes):
    """By which parts that learned on the same codes, a path or `None`, know one another."""
    if not codes:
        return None
    found = hashlib.sha256()
    for name, weights in sorted(read_codes(codes)[0].items()):
        for weight in weights:
            found.update(name.encode() + np.ascontiguousarray(weight).tobytes())
    return found.hexdigest()


def weights_of(model, parts):
    return {name: [np.asarray(weight) for weight in model.parts[name].weights] for name in parts}


def build(recipe, dtype, codes):
    """A fresh model of a recipe, with the codes of a path where there is one."""
    import keras

    from haim_tf.models import HierarchicalModel

    keras.utils.set_random_seed(recipe["seed"])
    model = HierarchicalModel(**recipe["model"], dtype=dtype)
    if codes and model.num_levels:
        for name, weights in read_codes(codes)[0].items():
            for variable, value in zip(model.parts[name].weights, weights, strict=True):
                variable.assign(value)
    return model
