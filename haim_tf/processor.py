"""The processor: how many cores are ours, memory kept between steps, a precision that it is good at."""

import ctypes
import functools
import os
import sys
import time

from haim_tf.backend import has_accelerator, is_tensorflow

# The parameters of glibc's mallopt: what is free at the heap's end before it goes back to the system, and how
# many blocks have pages of their own.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
KEPT_BYTES = 2**31 - 1
# So many times slower a precision must be before float32 takes its place. It is faster where the processor
# has instructions for it and many times slower where it has none: noise decides nothing.
SLOWER = 2.0


def usable_cores() -> int:
    """How many of the machine's cores this process may use, where the system tells (`taskset`, containers
    bound to some); else all of them.

    Example:
        >>> usable_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def keep_freed_memory() -> bool:
    """Has this process keep memory that it frees for what it needs next, rather than give it back to the
    system at once; called once more, it does nothing. What is free at the heap's end beyond 2 GiB goes back,
    what lies between blocks in use does not.

    Each step of training frees activations and asks for as many again. glibc takes large blocks from the
    system and gives them back one by one, and the system clears each page anew, which takes a quarter of the
    time (`benchmarks/README.md`).

    Nothing is changed where an accelerator computes, without glibc, or where the user has set how it
    allocates (`GLIBC_TUNABLES` or one of `MALLOC_...` in the environment).

    Returns:
        Whether it does.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    chosen = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux") or has_accelerator():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))


@functools.cache
def quick_precision(precision: str) -> str:
    """The precision to train in, where a recipe asks for one: itself, or float32 where this processor cannot
    compute in it or, under TensorFlow, takes more than twice as long for a convolution and its gradient.

    Args:
        precision: "float32", "mixed_bfloat16" or "mixed_float16".

    Example:
        >>> quick_precision("float32")
        'float32'
    """
    dtype = precision.removeprefix("mixed_")
    if dtype == "float32" or has_accelerator():
        return precision
    if not is_tensorflow():  # JAX has no products of float16 on processors.
        return "float32" if dtype == "float16" else precision
    return "float32" if _seconds(dtype) > SLOWER * _seconds("float32") else precision


def _seconds(dtype):
    """How long a small convolution and its gradients take, the quickest of three."""
    import tensorflow as tf

    images = tf.ones((4, 16, 16, 32), dtype)
    kernel = tf.ones((3, 3, 32, 64), dtype)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            total = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME"))
        return tape.gradient(total, [images, kernel])

    def timed():
        start = time.perf_counter()
        for gradient in step():
            gradient.numpy()
        return time.perf_counter() - start

    timed()
    return min(timed() for _ in range(3))
