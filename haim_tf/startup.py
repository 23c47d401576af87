"""What is set before TensorFlow is loaded, so that it starts without a word and keeps what it compiles.

Nothing that the user has set is changed: with `TF_CPP_MIN_LOG_LEVEL` in the environment all of TensorFlow's
lines appear that it lets through.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator

LOG_LEVEL, XLA_FLAGS = "TF_CPP_MIN_LOG_LEVEL", "TF_XLA_FLAGS"
# Turns off what is kept of programs, where it is 0.
KEEP = "HAIM_TF_PROGRAMS"
# Where XLA puts what it compiles, and looks for it: in memory, for a disk that is full would be its error.
EXECUTABLES = "ram://haim_tf/programs"
# TensorFlow ends the process at a flag that it does not know: only those versions get it that were tried.
KNOWN_VERSIONS = ("2.21.",)
_redirecting = threading.RLock()
_LOG_LINE = rb"WARNING: All log messages before absl::InitializeLog|[IWE]\d{4} \d\d:\d\d:[\d.]+ +\d+ "


def prepare() -> None:
    """Has TensorFlow loaded quietly and as programs are kept; called when haim_tf is imported."""
    if "tensorflow" not in sys.modules:
        on_import("tensorflow", _loading_tensorflow)


def keeps_programs() -> bool:
    """Whether programs are kept across processes: unless the user said no, by `HAIM_TF_PROGRAMS=0`."""
    return os.environ.get(KEEP, "1") != "0"


def is_quiet() -> bool:
    """Whether TensorFlow is to say nothing: unless the user set a lower level."""
    return os.environ.get(LOG_LEVEL, "3") == "3"


def on_import(name: str, around: Callable[[], contextlib.AbstractContextManager]) -> None:
    """Has a module that is not imported yet executed inside of `around()`, once it is."""
    sys.meta_path.insert(0, _Finder(name, around))


@contextlib.contextmanager
def held_back(lines: bytes) -> Iterator[None]:
    """Keeps lines that begin with the pattern `lines` from standard error, those of compiled code too; one
    thread at a time."""
    import tempfile

    with _redirecting, contextlib.ExitStack() as stack:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            kept = os.dup(2)
            held = stack.enter_context(tempfile.TemporaryFile())
        except (OSError, ValueError):
            yield  # There is no standard error, or no room for what it gets.
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            others = b"".join(line for line in held if not re.match(lines, line))
            with contextlib.suppress(OSError):
                os.write(2, others)


@contextlib.contextmanager
def _loading_tensorflow():
    if keeps_programs() and _version().startswith(KNOWN_VERSIONS):
        flags = os.environ.get(XLA_FLAGS, "")
        if "tf_xla_persistent_cache" not in flags:
            ours = f"--tf_xla_persistent_cache_directory={EXECUTABLES}"
            ours += " --tf_xla_persistent_cache_device_types=CPU"
            os.environ[XLA_FLAGS] = f"{flags} {ours}".strip()
    if not is_quiet():
        yield
        return
    # 3, not 2: where there is no GPU, and where what was kept is loaded, harmless lines are called errors.
    # What is an error to the user comes as an exception.
    os.environ[LOG_LEVEL] = "3"
    with held_back(_LOG_LINE):  # Some lines come before it reads the level.
        yield


def _version():
    import importlib.metadata

    for name in ("tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


class _Finder:
    """Finds one module as Python would without it, and puts something around its execution."""

    def __init__(self, name, around):
        self.name, self.around = name, around

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((s for finder in others if (s := finder.find_spec(name, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                with self.around():
                    execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = exec_module
        return spec
