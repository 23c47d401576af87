"""The weights file of a preset: Keras' `.weights.h5`, checked, complete, and small where asked."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haim_tf import files

if TYPE_CHECKING:
    import keras
    import numpy as np

    from haim_tf.models import HierarchicalModel

# From how many bytes on an array is compressed, and how: all numbers' first bytes, all second ones, ...
SMALL = 4096
COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
# More than enough in a file for a variable's name and a number.
BYTES_A_NAME = 4096


def sha256(path: str | os.PathLike) -> str:
    """The checksum of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check(path: str | os.PathLike, wanted: str | None) -> None:
    """A ValueError unless the file has the checksum `wanted`."""
    found = sha256(path)
    if found != wanted:
        raise ValueError(
            f"{path} is damaged, or not the file that belongs here: its sha256 is {found}, "
            f"metadata.json says {wanted}"
        )


def write(model: HierarchicalModel, path: Path, precision: Literal["float32", "float16"]) -> None:
    """Keras' weights file without the optimizer's state, compressed, in the compact layout of HDF5 1.8.

    The same weights give the same bytes: neither the time is in it nor names that Keras made up.

    Args:
        model: a `HierarchicalModel`.
        path: the file.
        precision: `"float32"`, or `"float16"` for the variables of main decoders and prior. Those of the
            autoencoders stay as they are: rounded ones would give other codes.

    Raises:
        ValueError: NaN or infinity in a variable, or one that does not fit float16.
    """
    import keras
    import numpy as np

    rounded = set()
    if precision == "float16":
        rounded = {id(v) for network in model.networks for v in network.variables}
        rounded -= {id(v) for autoencoder in model.autoencoders for v in autoencoder.variables}
    arrays = {}
    for name, value in saved_values(model).items():
        array = keras.ops.convert_to_numpy(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the weights must be finite, got NaN or infinity in {name}")
        if id(value) in rounded and array.dtype == np.float32:
            if np.abs(array).max(initial=0) > np.finfo("float16").max:
                raise ValueError(f"{value.path} does not fit float16: say precision='float32'")
            array = array.astype("float16")
        arrays[name] = array
    # By way of memory: HDF5 that meets a full disk takes the process along.
    path.write_bytes(_as_hdf5(arrays))


def saved_values(model: keras.Model) -> dict[str, Any]:
    """What Keras saves of a model's layers, mostly variables, by their names in a weights file.

    Names come from Keras' walk over the model, which only Keras can tell: so it saves the model, but each
    layer gives numbers in place of its variables.

    Args:
        model: a built model.

    Raises:
        OSError: there is no space for a temporary file.
    """
    import h5py
    import keras
    import numpy as np

    # HDF5 that meets a full disk takes the process along.
    files.check_room(tempfile.gettempdir(), BYTES_A_NAME * len(model.variables))
    values, layers = [], list(model._flatten_layers())

    def save_numbers(layer, store):
        type(layer).save_own_variables(layer, own := {})
        for key, value in own.items():
            store[key] = np.int64(len(values))
            values.append(value)

    try:
        for layer in layers:
            # Not as an attribute: Keras and TensorFlow keep account of those.
            vars(layer)["save_own_variables"] = partial(save_numbers, layer)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "names.weights.h5"
            keras.saving.save_weights(model, path, objects_to_skip=[getattr(model, "optimizer", None)])
            with h5py.File(path) as file:
                numbers = {name: int(item[()]) for name, item in _datasets(file)}
    finally:
        for layer in layers:
            vars(layer).pop("save_own_variables", None)
    return {name: values[number] for name, number in numbers.items()}


def _datasets(file):
    """Names and datasets of an open HDF5 file, in alphabetical order."""
    import h5py

    found = []
    file.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return sorted(found)


def _as_hdf5(arrays):
    """An HDF5 file of arrays by name, as bytes. h5py's own functions would note the time in it."""
    import h5py

    file_access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    file_access.set_fileobj_driver(h5py.h5fd.fileobj_driver, content := io.BytesIO())
    file_access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    timeless = {kind: h5py.h5p.create(kind) for kind in (h5py.h5p.FILE_CREATE, h5py.h5p.GROUP_CREATE)}
    for properties in timeless.values():
        properties.set_obj_track_times(False)
    made = h5py.h5f.create(b"weights", fcpl=timeless[h5py.h5p.FILE_CREATE], fapl=file_access)
    with h5py.File(made) as file:
        for name, array in sorted(arrays.items()):
            for group in reversed(Path(name).parents[:-1]):
                if str(group) not in file:
                    name_of_group = str(group).encode()
                    h5py.h5g.create(file.id, name_of_group, gcpl=timeless[h5py.h5p.GROUP_CREATE])
            how = {**COMPRESSION, "chunks": array.shape} if array.nbytes >= SMALL else {}
            file.create_dataset(name, data=array, track_times=False, **how)
    return content.getvalue()


def restore(
    model: keras.Model, path: Path, fresh: Collection[keras.Layer] = (), fresh_absent: bool = False
) -> None:
    """Loads a model's variables: each one is in the file, and the file holds nothing else.

    Args:
        model: a built model.
        path: the weights file.
        fresh: layers that stay as they are, whatever shapes the file has for them.
        fresh_absent: whether the file has no variables for those.

    Raises:
        ValueError: the file does not fit the model; it names the first variable that differs.
    """
    import keras

    count = _count(model) - (sum(map(_count, fresh)) if fresh_absent else 0)
    try:
        keras.Model.load_weights(model, path, objects_to_skip=fresh)
        misfit = "" if len(_shapes(path)) == count else "it has other variables"
    except Exception as error:  # Keras and h5py raise errors of many types for a file that does not fit.
        misfit = str(error)
    if misfit:
        difference = _describe_difference(model, path, fresh, fresh_absent) or misfit
        raise ValueError(f"{path} does not fit its config.json: {difference}")


def stored(model: keras.Model, path: Path, variable: keras.Variable) -> np.ndarray:
    """What a weights file holds for a variable of the model, whatever its shape there."""
    import h5py

    (name,) = (name for name, value in saved_values(model).items() if value is variable)
    with h5py.File(path) as file:
        return file[name][()].astype("float32")


def _count(layer):
    """How many variables Keras saves of a layer and those inside."""
    count = 0
    for part in layer._flatten_layers():
        part.save_own_variables(store := {})
        count += len(store)
    return count


def _shapes(path):
    """The shape of each variable in a weights file, by its name there."""
    import h5py

    with h5py.File(path) as file:
        return {name: item.shape for name, item in _datasets(file)}


def _describe_difference(model, path, fresh, fresh_absent):
    """The first variable, or none, in which a weights file and a model differ."""
    try:
        stored = _shapes(path)
    except Exception as error:  # As above.
        return f"it cannot be read as HDF5 ({error})"
    fresh_variables = {id(v) for layer in fresh for v in layer.variables}
    wanted = {}
    for name, value in saved_values(model).items():
        if id(value) not in fresh_variables:
            wanted[name] = tuple(value.shape)
        elif not fresh_absent:
            wanted[name] = stored.get(name, tuple(value.shape))
    for name in sorted({*stored, *wanted}, key=lambda name: (name in stored and name in wanted, name)):
        if stored.get(name) != wanted.get(name):
            found, expected = stored.get(name, "missing"), wanted.get(name, "unknown to the model")
            return f"{name} is {found} in the file and {expected} in the configuration"
    return None
