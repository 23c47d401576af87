"""The folder of kept programs: whether one may write to it, its files, and room for them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from haim_tf import files, startup
from haim_tf.programs import identity
from haim_tf.version import __version__

# Of all kept programs together; the ones that were not used for the longest time go first.
MAX_BYTES = 256 * 2**20
GRAPH, ABOUT, EXECUTABLES = "graph.pb", "about.json", "executables/"


def keeping() -> bool:
    """Whether programs are kept: the user did not say no, and the folder is theirs alone to write to."""
    if not startup.keeps_programs():
        return False
    try:
        home().mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home().stat()
    except (OSError, ValueError):  # No room for it, or no home.
        return False
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def home() -> Path:
    """Where programs are kept."""
    return files.home() / "programs"


def read(path: Path) -> dict[str, Any] | None:
    """What a file holds, or `None` where there is none that is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(ABOUT))
            content["graph"] = archive.read(GRAPH)
            names = [name for name in archive.namelist() if name.startswith(EXECUTABLES)]
            content["executables"] = {name.removeprefix(EXECUTABLES): archive.read(name) for name in names}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error, zipfile.BadZipFile):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes a program's file where that can be done, and makes room for it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps({name: content[name] for name in ("variables", "outputs")}))
        archive.writestr(GRAPH, content["graph"])
        for name, executable in content["executables"].items():
            archive.writestr(EXECUTABLES + name, executable)
    try:
        files.write_file(path, lambda file: file.write(written.getvalue()))
    except ValueError:
        return  # A disk that is full or read-only.
    _make_room(path.parent)


def _make_room(place):
    """Removes the oldest files of a folder, half-written ones too, where they are too many."""
    found = []
    for file in place.glob("*"):
        with contextlib.suppress(OSError):  # Another process makes room as well.
            if file.is_file():
                found.append((file.stat().st_mtime, file.stat().st_size, file))
    total = 0
    for _, size, file in sorted(found, reverse=True):
        total += size
        if total > MAX_BYTES:
            with contextlib.suppress(OSError):
                file.unlink()


@functools.cache
def keep_under_jax() -> bool:
    """Has JAX keep what it compiles, unless the user keeps it elsewhere; returns whether it does."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir is None:
        if importlib.util.find_spec("filelock") is None:
            return False  # Without that package JAX keeps nothing that is bounded in size.
        setting = __version__, jax.__version__, identity.processor(), os.environ.get("XLA_FLAGS")
        own = home() / f"jax-{identity.digest(setting)}"
        jax.config.update("jax_compilation_cache_dir", str(own))
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
        compilation_cache.reset_cache()  # It looked for a folder at the first compilation.
    return True
