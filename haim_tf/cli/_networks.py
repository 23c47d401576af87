"""Keras models as the command line takes them: files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def load_network(flag: str, path: str) -> keras.Model:
    """The Keras model in the file that a flag names.

    Raises:
        ValueError: it cannot be read as one.
    """
    import keras

    from haim_tf import files

    try:
        return keras.saving.load_model(files.expanded(path), compile=False)
    except Exception as error:  # Keras raises errors of many types for what is no model.
        raise ValueError(f"--{flag} must be a file of a Keras model, got {path!r}: {error}") from error
