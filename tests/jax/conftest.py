"""What tests under JAX share: two virtual devices, which JAX makes when it starts, and the command line."""

import importlib.util
import os
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

_path = Path(__file__).parents[1] / "cli" / "conftest.py"
_specification = importlib.util.spec_from_file_location("cli_conftest", _path)
_module = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_module)
run = _module.run
