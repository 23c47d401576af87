"""Keras' own files of a model, written as safely as this package's."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any

from haim_tf import files

# What a `.keras` file tells of its weights, beside the configuration.
HISTORY, HISTORY_FILE = ("origin", "fitted", "fitted_on"), "history.json"
# Of a variable's place in an HDF5 file, beside its values.
BYTES_A_VARIABLE = 4096


class KerasFiles:
    """Mixin that gives `HierarchicalModel` a `save` and `save_weights` that a full disk does not harm, and
    files that tell where the weights come from."""

    # The preset that the weights came from, if any: its `name`, `sha256`, `pretrained` and `dataset`.
    origin = None

    @property
    def weights_history(self) -> dict[str, Any]:
        """Where the weights come from: a dict of `origin` (a preset's `name`, `sha256`, `pretrained` and
        `dataset`, or `None`), `fitted` (whether `fit` has trained them, or a file had them) and `fitted_on`
        (the name of the data, or `None`). It goes with the weights, so the configuration does not have it."""
        return {name: getattr(self, name) for name in HISTORY}

    @weights_history.setter
    def weights_history(self, history: dict[str, Any]) -> None:
        for name in HISTORY:
            setattr(self, name, history.get(name))

    def save_assets(self, folder: str) -> None:
        """What Keras' saving calls to keep more than weights."""
        files.write_json(Path(folder) / HISTORY_FILE, self.weights_history)

    def load_assets(self, folder: str | None) -> None:
        path = Path(folder or "") / HISTORY_FILE
        if folder and path.exists():
            self.weights_history = files.read_json(path)

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **options: Any,
    ) -> None:
        """`keras.Model.save`; a `.keras` file is never half-written, and `~` in front is the user's home.

        Raises:
            FileNotFoundError: the folder of the file does not exist.
            ValueError: it cannot be written, as where the disk is full; what was there before still is. A
                file of Keras' old format, `.h5`.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.save("model.keras")
            >>> keras.saving.load_model("model.keras").image_shape
            (16, 16, 3)
        """
        text, save = os.fspath(filepath), functools.partial(super().save, zipped=zipped, **options)
        if str(text).endswith((".h5", ".hdf5")):  # An old format, which forgets what the classes are.
            raise ValueError(
                f"a model must be saved to a .keras file, or to a folder by save_to_preset, got {text!r}"
            )
        whole = isinstance(text, str) and text.endswith(".keras") and "://" not in text
        if not whole or (not overwrite and os.path.exists(text)):  # Then Keras asks whether it may.
            save(filepath, overwrite=overwrite)
            return
        path = files.expanded(filepath)
        files.check_folder_above(path)
        files.write_by_path(path, save)

    def save_weights(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        max_shard_size: float | None = None,
        **options: Any,
    ) -> None:
        """`keras.Model.save_weights`; a file is never half-written, and not begun where the disk has no room
        for it: HDF5 that meets a full disk takes the process along.

        Raises:
            FileNotFoundError: the folder of the file does not exist.
            ValueError: it cannot be written.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.save_weights("model.weights.h5")
            >>> model.load_weights("model.weights.h5")
        """
        path = files.expanded(filepath)
        files.check_folder_above(path)
        variables = [*self.variables, *getattr(getattr(self, "optimizer", None), "variables", ())]
        size = sum(BYTES_A_VARIABLE + 4 * math.prod(v.shape) for v in variables)
        with files.as_value_error(path):
            files.check_room(path.parent, size)
            save = functools.partial(super().save_weights, max_shard_size=max_shard_size, **options)
            if path.suffix != ".h5" or (not overwrite and path.exists()):
                save(path, overwrite=overwrite)  # Several files, or Keras asks whether it may.
            else:
                files.write_by_path(path, save)

    def load_weights(self, filepath: str | os.PathLike, skip_mismatch: bool = False, **options: Any) -> None:
        """`keras.Model.load_weights`. What is read counts as trained, and no longer as what the model was
        loaded with.

        Args:
            filepath: as `save_weights` wrote it.
            skip_mismatch, **options: to `keras.Model.load_weights`.

        Raises:
            ValueError: it does not fit the model, unless `skip_mismatch` says so.

        Example:
            >>> model = haim_tf.load("debug")
            >>> model.save_weights("model.weights.h5")
            >>> model.load_weights("model.weights.h5")
        """
        super().load_weights(filepath, skip_mismatch, **options)
        self.fitted, self.fitted_on = True, None

    def export(self, *arguments: Any, **options: Any) -> None:
        """Not by Keras, whose export knows nothing of sampling: an error that says what there is.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a HierarchicalModel is not exported by Keras: haim_tf.saved_model.export(model, folder) does it"
        )
