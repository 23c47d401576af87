"""What reading files has in common: errors that name the file, and a progress bar."""

import contextlib


@contextlib.contextmanager
def reading(path, kind):
    """Whatever goes wrong inside becomes a ValueError that names the file: NumPy, zipfile and Pillow raise
    nearly anything on damaged input."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"Cannot read {path} as {kind}: {error}") from error


def progress(items, name, total=None):
    """The items, with a bar on stderr once it has taken a second."""
    from tqdm import tqdm

    return tqdm(items, desc=f"Reading {name}", total=total, unit=" images", delay=1)
