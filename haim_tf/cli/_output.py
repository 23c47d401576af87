"""What commands write: checked before long work begins, never half-written."""

import os
from pathlib import Path

import numpy as np


def check_sheet(path):
    """Returns `path` as a `Path`; an error unless `data.save_grid` can write to it.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: it is not a `.png` file, or nothing can be written to its folder.
    """
    path = Path(path)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--output must be a file that ends in .png, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: no permission to write in {path.parent}")
    return path


def check_arrays(path):
    """Returns `path` as a `Path`; an error unless `write_arrays` can make this new file."""
    from haim_tf import files

    if Path(path).suffix != ".npz":
        raise ValueError(f"arrays are written to a file that ends in .npz, got {path}")
    return files.check_new_file(path)


def write_arrays(path, **arrays):
    """Writes a compressed `.npz` file of the arrays that are not `None`."""
    from haim_tf import files

    arrays = {name: array for name, array in arrays.items() if array is not None}
    files.write_file(path, lambda file: np.savez_compressed(file, **arrays))
