"""The weights file of a preset: Keras' `.weights.h5`, checked, complete, and small where asked."""

import hashlib
import tempfile
from pathlib import Path


def sha256(path):
    """The checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check(path, wanted):
    """A ValueError unless the file has the checksum `wanted`."""
    found = sha256(path)
    if found != wanted:
        raise ValueError(
            f"{path} is damaged, or not the file that belongs here: its sha256 is {found}, "
            f"metadata.json says {wanted}"
        )


def write(model, path, precision):
    """Keras' weights file without the optimizer's state, in the compact layout of HDF5 1.8."""
    import h5py
    import numpy as np

    full = path.with_name(f"full.{path.name}")
    model.save_weights(full)
    with h5py.File(full) as source, h5py.File(path, "w", libver=("v108", "v108")) as target:

        def copy(name, item):
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Group):
                target.require_group(name).attrs.update(item.attrs)
                return
            value = item[()]
            if precision == "float16" and value.dtype == np.float32 and "vector_quantizer" not in name:
                if np.abs(value).max(initial=0) > np.finfo("float16").max:
                    raise ValueError(f"{name} does not fit float16: say precision='float32'")
                value = value.astype("float16")
            target[name] = value

        source.visititems(copy)
    full.unlink()


def restore(model, path, fresh=(), fresh_absent=False):
    """Loads a model's variables: each one is in the file, and the file holds nothing else.

    Args:
        model: a built model.
        path: the weights file.
        fresh: layers that stay as they are.
        fresh_absent: whether the file has no variables for those.

    Raises:
        ValueError: the file does not fit the model; it names the first variable that differs.
    """
    count = _count(model._flatten_layers()) - (_count(fresh) if fresh_absent else 0)
    try:
        model.load_weights(path, objects_to_skip=fresh)
        misfit = "" if len(_layout(path)) == count else "it has other variables"
    except Exception as error:  # Keras and h5py raise errors of many types for a file that does not fit.
        misfit = str(error)
    if misfit:
        difference = _describe_difference(model, path, fresh) or misfit
        raise ValueError(f"{path} does not fit its config.json: {difference}")


def _count(layers):
    """How many variables Keras saves of layers."""
    count = 0
    for layer in layers:
        layer.save_own_variables(store := {})
        count += len(store)
    return count


def _layout(path):
    """The shape of each variable in a weights file, by its name there."""
    import h5py

    shapes = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            shapes[name] = item.shape

    with h5py.File(path) as file:
        file.visititems(visit)
    return shapes


def _describe_difference(model, path, fresh):
    """The first variable, or none, in which a weights file and a model differ, layers in `fresh` aside."""
    try:
        stored = _layout(path)
    except Exception as error:  # As above.
        return f"it cannot be read as HDF5 ({error})"
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(Path(folder) / path.name)
        wanted = _layout(Path(folder) / path.name)
    ignored = {layer.name for layer in fresh}
    names = {name for name in {*stored, *wanted} if not ignored & {*name.split("/")}}
    for name in sorted(names, key=lambda name: (name in stored and name in wanted, name)):
        if stored.get(name) != wanted.get(name):
            found, expected = stored.get(name, "missing"), wanted.get(name, "unknown to the model")
            return f"{name} is {found} in the file and {expected} in the configuration"
    return None
