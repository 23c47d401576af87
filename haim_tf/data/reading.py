"""What reading files has in common: errors that name the file, and a progress bar."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


@contextlib.contextmanager
def reading(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a ValueError that names the file: NumPy, zipfile and Pillow raise
    nearly anything on damaged input."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"Cannot read {path} as {kind}: {error}") from error


def progress(items: Iterable[Item], name: object, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar on stderr once it has taken a second."""
    from tqdm import tqdm

    return tqdm(items, desc=f"Reading {name}", total=total, unit=" images", delay=1)
