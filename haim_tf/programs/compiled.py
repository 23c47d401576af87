"""`Programs`: a function of tensors, compiled for each combination of shapes, or read from its file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import keras

from haim_tf import progress
from haim_tf.backend import compiled, is_tensorflow
from haim_tf.programs import folder, graphs, identity

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
        kept = folder.keeping()
        path = None
        if kept and is_tensorflow():
            described = identity.describe(self._layer)
            kept = described is not None
            if kept:
                shapes = [list(weight.shape) for weight in self._layer.weights]  # LoRA adds some.
                all_of_it = [*identity.setting(), self._what, described, shapes, signature]
                path = folder.home() / f"{identity.digest(all_of_it)}.zip"
                content = folder.read(path)
                if content is not None:
                    # XLA may refuse what is kept; then it is made anew.
                    with contextlib.suppress(Exception):
                        program, found = graphs.loaded(content, self._layer, inputs)
                        if found.keys() - content["executables"].keys():
                            folder.write(path, {**content, "executables": found})
                        return program
        elif kept:
            kept = folder.keep_under_jax()
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
            content = graphs.content_of(program, self._layer) if path else None
        if content is not None:
            program, content["executables"] = graphs.loaded(content, self._layer, inputs)
            folder.write(path, content)
        else:
            program(*inputs)
        return program


def _signature(x):
    return (x.dtype.name if is_tensorflow() else str(x.dtype), *x.shape) if hasattr(x, "shape") else repr(x)
