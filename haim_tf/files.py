"""Files that are checked before long work begins, and that are never half-written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np


# Bytes; Linux, macOS and Windows agree on about as many.
LONGEST_NAME = 255
_CHUNK = 1 << 20


def expanded(path: str | os.PathLike) -> Path:
    """`path` as a `Path`, a `~` in front of it replaced by the user's home.

    Raises:
        ValueError: nobody knows where that is, or it is no path that any file system has.
    """
    try:
        path = os.fsdecode(path)
    except TypeError:
        raise ValueError(f"a path must be a text or a path, got {path!r:.60}") from None
    if path == "" or "\0" in path:  # pathlib takes "" for the current folder.
        raise ValueError(f"a path must have at least one character and no null byte, got {path!r}")
    if max(len(os.fsencode(part)) for part in path.split(os.sep)) > LONGEST_NAME:
        raise ValueError(f"the names in a path must have at most {LONGEST_NAME} bytes, got {path!r:.60}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path!r} must be a path without ~, for there is no such home: {error}") from None


def home() -> Path:
    """The user's own folder of haim_tf, `HAIM_TF_HOME` or `~/.cache/haim_tf`; it need not exist yet."""
    return expanded(os.environ.get("HAIM_TF_HOME") or "~/.cache/haim_tf")


def absolute(path: str | os.PathLike) -> Path:
    """`path` as `expanded` gives it, whatever folder the process is in later on."""
    return expanded(path).absolute()


def check_new_file(path: str | os.PathLike) -> Path:
    """Returns `path` as a `Path`, `~` expanded; an error if it exists or cannot be written, before long work
    begins.

    Raises:
        FileNotFoundError: its folder does not exist.
        ValueError: it exists, or nothing can be written to its folder.
    """
    path = expanded(path)
    with as_value_error(path):  # Where a folder above may not be entered.
        exists = os.path.lexists(path) and (path.exists() or not path.is_symlink())
    if exists:
        raise ValueError(f"{path} exists: name another file, or remove it")
    check_folder_above(path)
    return path


def check_folder_above(path: Path) -> None:
    """A FileNotFoundError or ValueError unless a file or folder `path`, or what it links to, can be made."""
    with as_value_error(path):
        path = linked(path)
        found = path.parent.is_dir()
    if not found:
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: no permission to write in {path.parent}")


def linked(path: Path) -> Path:
    """What is to be replaced when `path` is written: where it is a symbolic link, what that points to."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def write_file(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a binary file that becomes `path` once it is complete. Where `path` is a symbolic
    link, what it points to is written.

    Raises:
        ValueError: it cannot be written, as where the disk is full; what was there before still is.
    """
    target = linked(absolute(path))
    unfinished = target.with_name(f".{target.name[:60]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with as_value_error(path):
            with open(unfinished, "wb") as file:
                write(file)
            os.replace(unfinished, target)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_by_path(path: str | os.PathLike, save: Callable[[Path], object]) -> None:
    """The same for what is not written to a file but to a path: `save` is called on one of the same name in
    a temporary folder."""
    path = absolute(path)
    with as_value_error(path), tempfile.TemporaryDirectory() as scratch:
        save(made := Path(scratch) / path.name)
        with open(made, "rb") as whole:
            write_file(path, lambda file: shutil.copyfileobj(whole, file))


@contextlib.contextmanager
def as_value_error(path: str | os.PathLike) -> Iterator[None]:
    """An OSError inside becomes a ValueError that says of `path` that it cannot be written."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error


def check_room(folder: str | os.PathLike, size: int) -> None:
    """An OSError unless there is room for a file of `size` bytes in a folder.

    By trying: how much is free does not tell of quotas and limits.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, size, _CHUNK):
            file.write(bytes(min(_CHUNK, size - start)))
        file.flush()


def write_files(contents: dict[Path, bytes]) -> None:
    """Writes new files, all or none, in one folder, which is made where it is not there.

    Raises:
        ValueError: they cannot be written.
    """
    made, written = [], []
    folder = linked(next(iter(contents)).parent)
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)
        for path, content in contents.items():
            write_file(path, lambda file, content=content: file.write(content))
            written.append(path)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error
        raise


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray], compressed: bool = False) -> None:
    """Writes an `.npz` file of arrays by name, never half-written."""
    import numpy as np

    def write(file):
        # Not `savez`, whose archive, left open by a full disk, complains once more when it is forgotten.
        kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        archive = zipfile.ZipFile(file, "w", kind, allowZip64=True)
        try:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.close()
        finally:
            archive.fp = None

    write_file(path, write)


def check_finite(value: Any, name: str = "") -> None:
    """A ValueError that names the first figure in nested dicts and lists that is NaN or infinite.

    Example:
        >>> check_finite({"levels": [{"error": float("nan")}]})
        Traceback (most recent call last):
        ValueError: levels.0.error must be a finite number, got nan
    """
    if isinstance(value, (dict, list, tuple)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            check_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name or 'the figure'} must be a finite number, got {value}")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, never half-written.

    Raises:
        ValueError: it cannot be written, or holds NaN or infinity, which JSON has no word for.
    """
    check_finite(value)
    write_file(path, lambda file: file.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode()))


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; a ValueError that names it where it cannot be read."""
    try:
        return json.loads(expanded(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None


def varint(number: int) -> bytes:
    """A non-negative int as protocol buffers write it (unsigned LEB128): 7 bits per byte, lowest first, the
    high bit set on all but the last; a ValueError for a negative one.

    Example:
        >>> varint(300)
        b'\\xac\\x02'
    """
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])
