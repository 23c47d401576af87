"""What reading files has in common: errors that name the file, and a progress bar."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def reading(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a ValueError that names the file: NumPy, zipfile and Pillow raise
    nearly anything on damaged input. So does a pipe or a device, which might never give anything."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")
        yield
    except Exception as error:
        raise ValueError(f"cannot read {path} as {kind}: {error}") from error


def progress(items: Iterable, name: str, total: int | None = None) -> Iterable:
    """The items, with a bar on stderr, where that is a terminal, once it has taken a second."""
    from tqdm import tqdm

    return tqdm(items, desc=f"Reading {name}", total=total, unit=" images", delay=1, disable=None)


def say(sentence: str) -> None:
    """A line on stderr of what is worth knowing and no error."""
    line = " ".join(f"haim_tf: {sentence}".split()).encode(errors="backslashreplace").decode()
    print(line, file=sys.stderr, flush=True)
