"""A run's figures and pictures for TensorBoard, where that is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from haim_tf.backend import is_tensorflow


class TensorBoard:
    """Writes events to a folder, made at the first of them; without TensorBoard, or TensorFlow, nothing."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer = None

    def scalars(self, row: dict[str, Any]) -> None:
        """The figures of a row of the log, by their stage."""
        figures = {name: value for name, value in row.items() if name not in ("stage", "step")}
        with self._writing() as summary:
            for name, value in figures.items() if summary else ():
                summary.scalar(f"stage_{row['stage'] + 1}/{name}", value, step=row["step"])

    def images(self, name: str, images: np.ndarray, step: int) -> None:
        """At most 16 of some images, uint8 `(B, H, W, C)`."""
        with self._writing() as summary:
            if summary:
                summary.image(name, images, step=step, max_outputs=16)

    def close(self) -> None:
        """Writes what is still held back."""
        if self._writer is not None:
            with contextlib.suppress(Exception):  # A full disk: these events are no part of the run.
                self._writer.close()
            self._writer = None

    @contextlib.contextmanager
    def _writing(self):
        """TensorFlow's `tf.summary`, which writes to the folder, or `None`."""
        if not is_tensorflow() or importlib.util.find_spec("tensorboard") is None:
            yield None
            return
        import tensorflow as tf

        if self._writer is None:
            try:
                self._writer = tf.summary.create_file_writer(str(self.folder))
            except tf.errors.OpError:  # As in `close`.
                yield None
                return
        with contextlib.suppress(tf.errors.OpError), self._writer.as_default():
            yield tf.summary
