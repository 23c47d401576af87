"""Where Keras' backends differ, for all who use them: programs, devices, what one of them lacks."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

# The setting before each of the threads that are in `unoptimized` now; the first one's is the user's.
_UNOPTIMIZED, _BEFORE = threading.Lock(), []


def is_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def in_a_graph() -> bool:
    """Whether TensorFlow is tracing the code that asks."""
    if not is_tensorflow():
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def require_tensorflow(what: str) -> None:
    """A ValueError unless Keras runs on TensorFlow; `what`, such as "the export", begins it."""
    if not is_tensorflow():
        raise ValueError(
            f"{what} must run under Keras' TensorFlow backend (KERAS_BACKEND=tensorflow), "
            f"got {keras.backend.backend()!r}"
        )


def replica_context() -> Any:
    """TensorFlow's context of the replica that asks, inside a step that several share; else `None`."""
    if not is_tensorflow():
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def has_accelerator() -> bool:
    """Whether Keras computes on something else than the processor."""
    devices = keras.distribution.list_devices()  # The best kind that there is, such as "gpu:0".
    return bool(devices) and not devices[0].lower().startswith("cpu")


@contextlib.contextmanager
def unoptimized() -> Iterator[None]:
    """Inside, JAX compiles programs quickly instead of making them quick: those of initial values run once,
    and take a second or two each to optimize. The setting is the process's: the last of the threads that are
    inside at once sets it back."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with _UNOPTIMIZED:
        _BEFORE.append(jax.config.read("jax_disable_most_optimizations"))
        jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        with _UNOPTIMIZED:
            before = _BEFORE.pop()
            if not _BEFORE:  # What the first one found.
                jax.config.update("jax_disable_most_optimizations", before)


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, JAX computes products of float32 in float32 on every device, where GPUs and TPUs would round
    their factors (to TF32 or bfloat16). For TensorFlow that is a setting of the process, see
    `forbid_tensor_float_32`."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.default_matmul_precision("highest"):
        yield


def forbid_tensor_float_32() -> None:
    """Has TensorFlow, for the whole process, compute products of float32 in float32 on GPUs, which would
    round their factors to TF32."""
    if is_tensorflow() and has_accelerator():
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)


def compiled(function: Callable, layer: keras.Layer) -> Callable:
    """A function of tensors as a program of XLA for each combination of their shapes.

    Args:
        function: pure tensor code. Arguments without a shape are constants of the program, which must be
            hashable; no keyword arguments.
        layer: whose variables the function may read; a program sees their values at the time of the call.

    Returns:
        The compiled function, under TensorFlow a `tf.function`.
    """
    if is_tensorflow():
        import tensorflow as tf

        return tf.function(function, jit_compile=True, autograph=False)
    if keras.backend.backend() != "jax":
        return function
    import jax

    variables, lock = layer.variables, threading.Lock()

    @functools.partial(jax.jit, static_argnums=0)
    def program(constants, values, tensors):
        tensors = iter(tensors)
        args = [next(tensors) if constant is None else constant[0] for constant in constants]
        # As an input: JAX would make constants of variables that are just read.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*args)

    def run(*args: Any) -> Any:
        constants = tuple(None if hasattr(x, "shape") else (x,) for x in args)
        tensors = [x for x in args if hasattr(x, "shape")]
        # Threads that ask for a new program at once would each compile it; it runs outside of the lock.
        with lock:
            return program(constants, [v.value for v in variables], tensors)

    return run


def compiled_for_any_number(function: Callable, layer: keras.Layer) -> Callable:
    """A function of batches and settings as a program, traced once for batches of any number under
    TensorFlow (or run step by step, where `tf.config.run_functions_eagerly` says so), else as `compiled`
    does it.

    Args:
        function, layer: as for `compiled`.
    """
    if not is_tensorflow():
        return compiled(function, layer)
    import tensorflow as tf

    traced = tf.function(function, autograph=False)

    def run(*args: Any) -> Any:
        if tf.config.functions_run_eagerly():
            return function(*args)
        specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) if tf.is_tensor(x) else x for x in args]
        return traced.get_concrete_function(*specs)(*args)

    return run


def one_by_one(function: Callable[[Any], Any], count: Any) -> Any:
    """`function(0)`, ..., `function(count - 1)`, float32 vectors of one size, stacked, a tensor
    `(count, size)`: the function is traced once and runs once at a time."""
    if not is_tensorflow():
        return ops.map(function, ops.arange(count))
    # `keras.ops.map` would trace it twice, and run up to ten at a time.
    import tensorflow as tf

    signature = tf.TensorSpec((None,), "float32")
    return tf.map_fn(function, tf.range(count), parallel_iterations=1, fn_output_signature=signature)
