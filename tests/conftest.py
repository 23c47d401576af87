"""What every test shares: quiet TensorFlow, fixed seeds, the default dtype policy."""

import os

# TensorFlow reads it when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

collect_ignore = [] if keras.backend.backend() == "jax" else ["jax"]


@pytest.fixture(autouse=True)
def _fresh_global_state():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
