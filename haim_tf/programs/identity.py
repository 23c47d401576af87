"""What a program depends on: all that its file is named by."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import keras

from haim_tf import startup
from haim_tf.processor import usable_cores
from haim_tf.version import __version__

# What programs are made by.
SOURCES = "layers", "likelihoods", "networks", "sampling", "programs", "backend.py", "completion.py"


def setting() -> list[Any]:
    """All that is the same for each program of a process."""
    import tensorflow as tf

    environment = [os.environ.get(name) for name in ("XLA_FLAGS", startup.XLA_FLAGS)]
    settings = keras.config.floatx(), keras.config.image_data_format(), keras.distribution.list_devices()
    versions = __version__, tf.__version__, keras.__version__
    return [*versions, _sources(), processor(), *environment, *settings]


def describe(layer: keras.Layer) -> str | None:
    """A layer's configuration as JSON, or `None` where code of others takes part, which may change unseen."""
    try:
        serialized = keras.saving.serialize_keras_object(layer)
        serialized["config"].pop("name", None)
        described = json.dumps(serialized, sort_keys=True)
    except (TypeError, ValueError):
        return None

    def homes(value):
        if isinstance(value, dict):
            yield from [value["module"]] if value.get("module") else []
            value = list(value.values())
        for part in value if isinstance(value, list) else []:
            yield from homes(part)

    ours = ("haim_tf", "keras")
    return described if all(m.split(".")[0] in ours for m in homes(json.loads(described))) else None


def digest(value: Any) -> str:
    """A checksum of what is JSON, as a file's name."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:40]


@functools.cache
def _sources():
    """A checksum of the package's code that programs are made of, for those who change it."""
    root, checksum = Path(__file__).parents[1], hashlib.sha256()
    for name in SOURCES:
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            checksum.update(file.read_bytes())
    return checksum.hexdigest()


@functools.cache
def processor() -> list[Any]:
    """What tells processors apart that do not run the same code, and how many of its cores are ours."""
    found = [platform.machine(), usable_cores()]
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return [*found, platform.processor(), platform.node()]
    names = "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part"
    return [*found, *(line for line in first.splitlines() if line.split(":")[0].strip() in names)]
