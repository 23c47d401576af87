"""haim_tf: hierarchical autoregressive image models with auxiliary decoders (De Fauw et al. 2019)."""

import sys
from pathlib import Path

from haim_tf.version import __version__

__all__ = [
    "DiscreteAutoencoder",
    "HierarchicalModel",
    "__version__",
    "data",
    "layers",
    "likelihoods",
    "list_models",
    "load",
    "models",
    "networks",
    "presets",
    "saved_model",
]


def _is_command():
    """Whether this process is the command line: `haim_tf ...` or `python -m haim_tf ...`."""
    program = getattr(sys, "argv", [""])[0]
    if program == "-m":  # What Python says until it has found the module.
        return ("-m", "haim_tf") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return Path(program).stem == "haim_tf"


# A command imports what it needs: `haim_tf list`, `--help` and wrong flags need not wait for tensorflow.
if not _is_command():
    from haim_tf import data, layers, likelihoods, models, networks, presets, saved_model
    from haim_tf.models import DiscreteAutoencoder, HierarchicalModel
    from haim_tf.presets import list_models, load
