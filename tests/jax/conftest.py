"""What tests under JAX share: two virtual devices, which JAX makes when it starts, the command line, and each
preset loaded once."""

import importlib.util
import os
from pathlib import Path

import pytest

from haim_tf.backend import unoptimized

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

_path = Path(__file__).parents[1] / "cli" / "conftest.py"
_specification = importlib.util.spec_from_file_location("cli_conftest", _path)
_module = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_module)
run, _loaded_once = _module.run, _module._loaded_once


@pytest.fixture
def compiles_quickly():
    """For tests of what is done, not of its arithmetic."""
    with unoptimized():
        yield
