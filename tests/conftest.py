"""What every test shares: quiet TensorFlow, fixed seeds, the default dtype policy."""

import contextlib
import gc
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path

# Programs are made once per run, in a folder of its own that workers and other processes share.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _home = tempfile.TemporaryDirectory(prefix="haim_tf_tests_")
    os.environ["HAIM_TF_HOME"] = _home.name
os.environ["HAIM_TF_PROGRAMS"] = "1"

from haim_tf import progress  # Before TensorFlow, whose start it prepares.

# They run once or twice: most of the time would go into making them quick.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# TensorFlow reads them when it is imported. Tests run side by side, a thread each.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import pytest
from absl import flags

# Nothing is told of, however slow the machine is.
progress.SLOW_SECONDS = 3600.0
# What is imported stays, and a graph is tens of thousands of objects that the collector need not visit often.
gc.freeze()
gc.set_threshold(20_000, 10, 10)

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.ops import gen_resource_variable_ops
    from tensorflow.python.util import tf_stack

    # Graphs of one or two steps are not worth rewriting, nor their nodes the stack that each was made in.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    no_stack = tf_stack.extract_stack()
    tf_stack.extract_stack = lambda stacklevel=1: no_stack
    # A handle with its variable's name has a kernel of its own, which takes longer to make than all the rest.
    make_handle = gen_resource_variable_ops.var_handle_op
    gen_resource_variable_ops.var_handle_op = lambda *args, debug_name="", **other: make_handle(
        *args, **other
    )

collect_ignore = [] if keras.backend.backend() == "jax" else ["jax"]


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("slow"):
            assert mark.kwargs.get("reason"), f"{item.nodeid} is slow: say why, as slow(reason=...)"


@pytest.fixture(autouse=True)
def _fresh_global_state():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def eagerly():
    """TensorFlow's functions run step by step: a few steps are over before their program would be made."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def running():
    """`running(function, eagerly)`: the function, during which TensorFlow's run step by step, or do not."""
    import tensorflow as tf

    def wrapped(function, eagerly):
        def run(*arguments, **options):
            before = tf.config.functions_run_eagerly()
            tf.config.run_functions_eagerly(eagerly)
            try:
                return function(*arguments, **options)
            finally:
                tf.config.run_functions_eagerly(before)

        return run

    return wrapped


@pytest.fixture
def script(monkeypatch):
    """`script(path, *arguments)` runs one of the repository's scripts in this process, flags and all."""

    def run(path, *arguments):
        name = Path(path).stem
        monkeypatch.syspath_prepend(Path(path).parent)
        module = importlib.import_module(name)
        try:
            flags.FLAGS([name, *map(str, arguments)])
            module.main([name])
        finally:
            for flag in flags.FLAGS.get_flags_for_module(name):
                delattr(flags.FLAGS, flag.name)
            flags.FLAGS.unparse_flags()
            del sys.modules[name]

    return run


@pytest.fixture(scope="session")
def small_images(tmp_path_factory):
    """An .npz file of 96 images of 8x8 pixels, noise about a level of grey each, in three classes."""
    path = tmp_path_factory.mktemp("small_images") / "images.npz"
    rng = np.random.default_rng(0)
    images = np.clip(rng.integers(0, 200, (96, 1, 1, 1)) + rng.integers(0, 40, (96, 8, 8, 1)), 0, 255)
    np.savez(path, images=images.astype("uint8"), labels=rng.integers(0, 3, 96))
    return path


@pytest.fixture(scope="session")
def small_recipe():
    """`small_recipe(interval)`: a recipe for `small_images`, two intervals of codes, then two of networks;
    without dropout, whose masks depend on how a batch is shared."""

    def recipe(interval):
        networks = {"width": 8, "blocks": 1}
        level = {"downsampling": 2, "codebook_size": 8, "code_dim": 4, **networks, "decoder": networks}
        model = {"image_shape": [8, 8, 1], "num_classes": 3, "levels": [level], "prior": networks}
        stage = {"steps": 2 * interval, "learning_rate": 0.01}
        return {
            "model": model,
            "batch_size": 8,
            "flip": True,
            "holdout": 16,
            "interval": interval,
            "ema": 0.9,
            "clip_norm": 0.1,
            "stages": [
                {"train": ["codes"], **stage},
                {"train": ["decoders", "prior"], **stage, "warmup": 2},
            ],
        }

    return recipe


@pytest.fixture
def full_disk():
    """`with full_disk(size):` no file grows beyond that many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def full(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return full


@pytest.fixture
def dependence():
    """Which outputs of a function of grids depend on which of its inputs, by gradients.

    `dependence(function, (H, W, C))` gives bools (H * W, H * W), outputs by inputs in raster order, for a
    function of (B, H, W, C). It also checks that the examples of a batch have nothing to do with each other.
    """
    import tensorflow as tf

    def measure(function, shape):
        height, width, channels = shape
        count = height * width
        x = tf.random.stateless_normal((count, height, width, channels), seed=(0, 1))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            outputs = function(x)
            outputs = tf.reshape(outputs, (count, count, outputs.shape[-1]))
            weighted = outputs * tf.random.stateless_uniform(outputs.shape[-1:], (0, 2), 0.5, 1.5)
            # Example i is asked about position i, so that one backward pass answers for all positions.
            diagonal = tf.reduce_sum(tf.einsum("iip->ip", weighted))
            first = tf.reduce_sum(weighted[0])
        assert np.abs(tape.gradient(first, x)[1:]).max(initial=0) == 0, "examples depend on each other"
        return np.abs(tape.gradient(diagonal, x)).max(-1).reshape(count, count) > 0

    return measure
