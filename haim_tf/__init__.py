"""haim_tf: hierarchical autoregressive image models with auxiliary decoders (De Fauw et al. 2019)."""

import importlib
from typing import TYPE_CHECKING

from haim_tf import startup
from haim_tf.registered import register
from haim_tf.version import __version__

if TYPE_CHECKING:
    from haim_tf import (
        compression,
        data,
        evaluation,
        layers,
        likelihoods,
        models,
        networks,
        presets,
        saved_model,
        training,
    )
    from haim_tf.models import DiscreteAutoencoder, HierarchicalModel
    from haim_tf.presets import list_models, load

__all__ = [
    "DiscreteAutoencoder",
    "HierarchicalModel",
    "__version__",
    "compression",
    "data",
    "evaluation",
    "layers",
    "likelihoods",
    "list_models",
    "load",
    "models",
    "networks",
    "presets",
    "saved_model",
    "training",
]
# What is no subpackage, and the one that it lies in.
_HOMES = {
    "DiscreteAutoencoder": "models",
    "HierarchicalModel": "models",
    "list_models": "presets",
    "load": "presets",
}

startup.prepare()
register()


def __getattr__(name):
    """Imports what is asked for: `haim_tf list` and wrong flags are not to wait for tensorflow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, name)}")
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
