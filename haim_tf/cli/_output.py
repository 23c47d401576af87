"""What commands write: checked before long work begins, never half-written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def check_sheet(path: str) -> Path:
    """Returns `path` as a `Path`; an error unless `data.save_grid` can write to it.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: it is not a `.png` file, or nothing can be written to its folder.
    """
    from haim_tf import files

    path = files.expanded(path)
    files.check_folder_above(path)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--output must be a file that ends in .png, got {path}")
    return path


def check_arrays(path: str) -> Path:
    """Returns `path` as a `Path`; an error unless `write_arrays` can make this new file."""
    from haim_tf import files

    if Path(path).suffix != ".npz":
        raise ValueError(f"arrays must go to a file that ends in .npz, got {path}")
    return files.check_new_file(path)


def write_arrays(path: Path, **arrays: np.ndarray | None) -> None:
    """Writes a compressed `.npz` file of the arrays that are not `None`."""
    from haim_tf import files

    arrays = {name: array for name, array in arrays.items() if array is not None}
    files.write_arrays(path, arrays, compressed=True)


def check_outputs(paths: Sequence[str], folder: str, suffix: str) -> list[Path]:
    """A new file in `folder` for each of `paths`, named as it is but for the suffix, as `Path`s.

    Raises:
        FileNotFoundError: the folder above `folder` or one of the `paths` does not exist.
        ValueError: no paths, two of one name, a file that exists, or a folder that cannot be written.
    """
    from haim_tf import files

    folder, paths = files.expanded(folder), [files.expanded(path) for path in paths]
    if not paths:
        raise ValueError("name at least one file")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    target = files.linked(folder)
    if not target.parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise FileNotFoundError(
            f"--output must be a folder, or a new one in an existing folder, got {folder}"
        )
    if not os.access(folder if folder.exists() else target.parent, os.W_OK):
        raise ValueError(f"cannot write to {folder}: no permission")
    outputs = [folder / f"{path.stem}{suffix}" for path in paths]
    for i, output in enumerate(outputs):
        if os.path.lexists(output):
            raise ValueError(f"{output} exists: name another folder, or remove it")
        if output in outputs[:i]:
            raise ValueError(f"{paths[i]} and {paths[outputs.index(output)]} would both become {output}")
    return outputs


def write_outputs(outputs: Sequence[Path], contents: Sequence[bytes]) -> None:
    """Writes bytes to the files that `check_outputs` gave, all or none."""
    from haim_tf import files

    files.write_files(dict(zip(outputs, contents, strict=True)))
