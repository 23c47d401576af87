"""The classes that Keras finds by name in files, known to it before they are imported.

Keras imports no foreign module for a name that it reads in a `.keras` file: a class is found only once it is
registered, which its module does. Importing all of them takes seconds, for keras and tensorflow come with
them, and `haim_tf list` needs none. So what is registered at first, as soon as both haim_tf and keras are
imported, whichever comes first, is where a class lies; the class itself follows when a file asks for it.
"""

import contextlib
import importlib
import sys

from haim_tf import startup

PACKAGE = "haim_tf"
# By the subpackage whose import registers them.
REGISTERED = {
    "layers": (
        "CausalAttention2D",
        "GatedResidualBlock",
        "MaskedConv2D",
        "ResidualBlock",
        "ResidualStack",
        "VectorQuantizer",
    ),
    "likelihoods": ("Categorical", "DiscretizedLogisticMixture"),
    "networks": (
        "Encoder",
        "FeedForwardDecoder",
        "MaskedSelfPredictionDecoder",
        "MaskedSelfPredictionTeacher",
        "PixelCNN",
    ),
    "models": ("DiscreteAutoencoder", "HierarchicalModel", "WarmUp"),
    "training": ("AveragingAdam",),
}


def registered_class(name: str) -> type:
    """The class that is registered under a name, imported where it is not yet.

    Example:
        >>> registered_class("HierarchicalModel").__name__
        'HierarchicalModel'
    """
    import keras

    (home,) = (home for home, names in REGISTERED.items() if name in names)
    importlib.import_module(f"{PACKAGE}.{home}")
    # Not by `get_registered_object`: while Keras reads a file it remembers what was registered before.
    return keras.saving.get_custom_objects()[f"{PACKAGE}>{name}"]


def register() -> None:
    """Tells Keras where the classes lie: at once where it is imported, else as soon as it is."""
    if "keras" in sys.modules:
        _register()
    else:
        startup.on_import("keras", _registering)


class _NotImported:
    """Stands for a registered class until a file asks for one of its objects."""

    def __init__(self, name):
        self.name = name

    def from_config(self, config):
        return registered_class(self.name).from_config(config)

    def __repr__(self):
        return f"<{PACKAGE}>{self.name}, not imported yet>"


def _register():
    import keras

    known = keras.saving.get_custom_objects()
    for names in REGISTERED.values():
        for name in names:
            known.setdefault(f"{PACKAGE}>{name}", _NotImported(name))


@contextlib.contextmanager
def _registering():
    yield
    _register()
