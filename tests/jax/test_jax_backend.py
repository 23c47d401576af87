"""The package under Keras' JAX backend, in an environment without tensorflow (`make test-jax`)."""

import importlib.util
import sys

import keras
import pytest

pytestmark = pytest.mark.jax


def test_environment_has_jax_and_no_tensorflow():
    assert keras.backend.backend() == "jax"
    assert importlib.util.find_spec("tensorflow") is None


def test_import_needs_no_tensorflow():
    import haim_tf

    assert haim_tf.__version__
    assert "tensorflow" not in sys.modules
