"""Presets: a model as a folder, and the zoo of presets that the package carries.

They stand below the models, whose class they find by its registered name. Keras is imported where it is used:
reading a preset's JSON files, as `haim_tf list` does, needs none of it.
"""

from haim_tf.presets.folder import (
    CARD,
    CONFIG,
    METADATA,
    WEIGHTS,
    find,
    is_pretrained,
    list_models,
    read,
)
from haim_tf.presets.hub import upload
from haim_tf.presets.loading import load
from haim_tf.presets.saving import check_savable, rewrite_metadata, save_to_preset

__all__ = [
    "CARD",
    "CONFIG",
    "METADATA",
    "WEIGHTS",
    "check_savable",
    "find",
    "is_pretrained",
    "list_models",
    "load",
    "read",
    "rewrite_metadata",
    "save_to_preset",
    "upload",
]
