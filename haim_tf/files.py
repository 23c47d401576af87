"""Files that are checked before long work begins, and that are never half-written."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def expanded(path: str | os.PathLike) -> Path:
    """`path` as a `Path`, a `~` in front of it replaced by the user's home.

    Raises:
        ValueError: nobody knows where that is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} must be a path without ~, for there is no such home: {error}") from None


def absolute(path: str | os.PathLike) -> Path:
    """`path` as `expanded` gives it, whatever folder the process is in later on."""
    return expanded(path).absolute()


def check_new_file(path: str | os.PathLike) -> Path:
    """Returns `path` as a `Path`; an error if it exists or cannot be written, before long work begins.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: it exists, or nothing can be written to its folder.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists: name another file, or remove it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: no permission to write in {path.parent}")
    return path


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a binary file that becomes `path`, a `Path`, once it is complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            write(file)
        os.replace(unfinished, path)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, never half-written."""
    write_file(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; a ValueError that names it where it cannot be read."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
