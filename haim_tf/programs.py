"""Compiled programs that outlive their process: traced and compiled once on a machine, then read from a file.

A file holds one program: its graph, whose weights are inputs, and what XLA made of it for this processor. It
lies in the folder `programs` of `HAIM_TF_HOME` (`~/.cache/haim_tf`), which only its owner may write to, under
a name that stands for all that the program depends on: this package and its sources, TensorFlow and Keras,
processor, settings, the network's configuration and the shapes. `HAIM_TF_PROGRAMS=0` in the environment keeps
and reads nothing. Whatever goes wrong with the folder, the program is made as if there were none. (JAX has a
cache of its own, which is kept in the same place.)
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import platform
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from haim_tf import files, progress, startup
from haim_tf.backend import compiled, is_tensorflow
from haim_tf.version import __version__

# Of all kept programs together; the ones that were not used for the longest time go first.
MAX_BYTES = 256 * 2**20
GRAPH, ABOUT, EXECUTABLES = "graph.pb", "about.json", "executables/"
# What XLA calls errors when it loads a program: tuning hints of its own that no processor lists, and that the
# file is no text.
_LOADING = rb"E\d{4} .*(cpu_aot_loader|XlaSerializedCacheEntry)"

# Tracing is Python's work, and one at a time is as fast.
_tracing = threading.Lock()


class Programs:
    """A function of tensors as programs, one for each combination of shapes, compiled by XLA and kept.

    Args:
        function: pure tensor code of one layer. The first argument is of shape `(B, H, W, ...)`; those
            without a shape are constants of the program; the last is how many rows of a grid to go through,
            an int32 tensor. It returns a tuple of tensors and `None`s.
        layer: the layer, the only one whose variables the function reads.
        what: what is compiled, for the user and as part of the file's name, such as "the sampler".

    Example:
        >>> programs = Programs(functools.partial(draw_given, network), network, "completion")
        >>> grid, weights = programs(noise, None, None, None, codes, None, rows)
    """

    def __init__(self, function: Callable, layer: keras.Layer, what: str):
        self._layer, self._what = layer, what
        self.function = compiled(function, layer)
        self._programs, self._lock = {}, threading.Lock()

    def __call__(self, *inputs: Any) -> Any:
        signature = tuple(_signature(x) for x in inputs)
        with self._lock:
            if signature not in self._programs:
                # A run of no rows compiles, and does no work.
                self._programs[signature] = self._make((*inputs[:-1], 0 * inputs[-1]), signature)
            program = self._programs[signature]
        return program(*inputs)

    def _make(self, inputs, signature):
        """The program of such inputs, run once."""
        kept = keeping()
        path = None
        if kept and is_tensorflow():
            described = _describe(self._layer)
            kept = described is not None
            if kept:
                path = folder() / f"{_digest([*_setting(), self._what, described, signature])}.zip"
                content = _read(path)
                if content is not None:
                    # XLA may refuse what is kept; then it is made anew.
                    with contextlib.suppress(Exception):
                        program, found = _loaded(content, self._layer, inputs)
                        if found.keys() - content["executables"].keys():
                            _write(path, {**content, "executables": found})
                        return program
        elif kept:
            kept = _keep_under_jax()
        count, height, width = inputs[0].shape[:3]
        once = "on this machine" if kept else "in this process"
        what = f"{self._what} of {height}x{width} grids, {count} at a time"
        with progress.said_if_slow(f"compiling {what}: once {once}"):
            return self._compiled(inputs, path)

    def _compiled(self, inputs, path):
        if not is_tensorflow():
            self.function(*inputs)
            return self.function
        with _tracing:
            program = self.function.get_concrete_function(*inputs)
            content = _content(program, self._layer) if path else None
        if content is not None:
            program, content["executables"] = _loaded(content, self._layer, inputs)
            _write(path, content)
        else:
            program(*inputs)
        return program


def keeping() -> bool:
    """Whether programs are kept: the user did not say no, and the folder is theirs alone to write to."""
    if not startup.keeps_programs():
        return False
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder().stat()
    except (OSError, RuntimeError):  # No room for it, or no home.
        return False
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def folder() -> Path:
    """Where programs are kept."""
    return files.home() / "programs"


def _signature(x):
    return (x.dtype.name if is_tensorflow() else str(x.dtype), *x.shape) if hasattr(x, "shape") else repr(x)


# What a program depends on --------------------------------------------------------------------------------


def _setting():
    """All that is the same for each program of a process."""
    import tensorflow as tf

    environment = [os.environ.get(name) for name in ("XLA_FLAGS", startup.XLA_FLAGS)]
    settings = keras.config.floatx(), keras.config.image_data_format(), keras.distribution.list_devices()
    versions = __version__, tf.__version__, keras.__version__
    return [*versions, _sources(), _processor(), *environment, *settings]


def _describe(layer):
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


def _digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:40]


@functools.cache
def _sources():
    """A checksum of the package's code that programs are made of, for those who change it."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for name in (
        "layers",
        "likelihoods",
        "networks",
        "sampling",
        "completion.py",
        "programs.py",
        "backend.py",
    ):
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _processor():
    """What tells processors apart that do not run the same code, and how many of its cores are ours."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [platform.machine(), cores]
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return [*found, platform.processor(), platform.node()]
    names = "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part"
    return [*found, *(line for line in first.splitlines() if line.split(":")[0].strip() in names)]


# Tracing and running, TensorFlow only ---------------------------------------------------------------------


def _content(traced, layer):
    """What a file holds of a traced function, but for executables: its graph, the weights among the inputs.
    `None` where it reads something else than the layer's variables."""
    import tensorflow as tf

    handles = {id(v.value.handle): i for i, v in enumerate(layer.variables)}
    variables = [handles.get(id(x)) for x in traced.captured_inputs]
    if None in variables:
        return None
    graph = tf.compat.v1.GraphDef()
    graph.library.CopyFrom(traced.graph.as_graph_def().library)
    graph.library.function.append(traced.function_def)
    del graph.library.gradient[:]
    _rename(graph.library.function)

    call = tf.compat.v1.NodeDef(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = graph.library.function[-1].signature.name
    call.attr["_XlaMustCompile"].b = True
    call.attr["Tout"].list.type.extend(x.dtype.as_datatype_enum for x in traced.graph.outputs)
    for i, x in enumerate(traced.graph.inputs):
        place = graph.node.add(name=f"input_{i}", op="Placeholder")
        place.attr["dtype"].type = x.dtype.as_datatype_enum
        call.attr["Tin"].list.type.append(x.dtype.as_datatype_enum)
        call.input.append(place.name)
    graph.node.append(call)
    outputs = [x is not None for x in traced.structured_outputs]
    return {"graph": graph.SerializeToString(), "variables": variables, "outputs": outputs, "executables": {}}


def _rename(functions):
    """Gives functions names that no others have, for a process may read many files."""
    content = hashlib.sha256(b"".join(f.SerializeToString(deterministic=True) for f in functions)).hexdigest()
    names = {f.signature.name: f"haim_tf_{content[:16]}_{i}" for i, f in enumerate(functions)}
    for function in functions:
        function.signature.name = names[function.signature.name]
        for node in function.node_def:
            node.op = names.get(node.op, node.op)
            for value in node.attr.values():
                for called in (value.func, *value.list.func):
                    if called.name in names:
                        called.name = names[called.name]


def _loaded(content, layer, inputs):
    """A kept program, run once on `inputs`, and what XLA compiled for it, bytes by name."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(content["graph"])
    *_, call = graph.node
    own_name, variables = call.attr["f"].func.name, layer.variables
    results = [f"call:{i}" for i in range(len(call.attr["Tout"].list.type))]

    def tensors(inputs):
        weights = (variables[i].value.handle for i in content["variables"])
        return [*(x for x in inputs if hasattr(x, "shape")), *weights]

    def imported(*places):
        sources = {f"input_{i}:0": x for i, x in enumerate(places)}
        return tf.graph_util.import_graph_def(graph, sources, results, name="")

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors(inputs)]
    run = tf.compat.v1.wrap_function(imported, specs)

    def program(*inputs):
        found = iter(run(*tensors(inputs)))
        return tuple(next(found) if there else None for there in content["outputs"])

    with _executables(content["executables"], own_name) as compiled:
        program(*inputs)
    return program, compiled


@contextlib.contextmanager
def _executables(kept, name):
    """Lays what was kept where XLA looks for it, and gives what it then has of the function of this name."""
    import tensorflow as tf

    place, found = startup.EXECUTABLES, {}
    if place not in os.environ.get(startup.XLA_FLAGS, ""):
        yield found
        return
    tf.io.gfile.makedirs(place)
    for file, content in kept.items():
        with tf.io.gfile.GFile(f"{place}/{file}", "wb") as opened:
            opened.write(content)
    try:
        with contextlib.nullcontext() if startup.is_quiet() or not kept else startup.held_back(_LOADING):
            yield found
    finally:
        for file in tf.io.gfile.listdir(place):
            with contextlib.suppress(tf.errors.OpError), tf.io.gfile.GFile(f"{place}/{file}", "rb") as opened:
                content = opened.read()
                # It begins with its keys and then the name of the module, which is that of the function.
                if name.encode() in content[:1000]:
                    found[file] = content
                    # XLA has it by now, and needs no second copy in memory.
                    tf.io.gfile.remove(f"{place}/{file}")


# Files ----------------------------------------------------------------------------------------------------


def _read(path):
    """What a file holds, or `None` where there is none that is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(ABOUT))
            content["graph"] = archive.read(GRAPH)
            names = [name for name in archive.namelist() if name.startswith(EXECUTABLES)]
            content["executables"] = {name.removeprefix(EXECUTABLES): archive.read(name) for name in names}
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def _write(path, content):
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
def _keep_under_jax():
    """Has JAX keep what it compiles, unless the user keeps it elsewhere; returns whether it does."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir is None:
        if importlib.util.find_spec("filelock") is None:
            return False  # Without that package JAX keeps nothing that is bounded in size.
        setting = __version__, jax.__version__, _processor(), os.environ.get("XLA_FLAGS")
        own = folder() / f"jax-{_digest(setting)}"
        jax.config.update("jax_compilation_cache_dir", str(own))
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
        compilation_cache.reset_cache()  # It looked for a folder at the first compilation.
    return True
