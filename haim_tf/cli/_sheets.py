"""Sheets of pictures as commands write them: large enough to look at, with captions, opened where asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

from haim_tf.cli._pictures import open_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "scale",
    None,
    "Pixels of the sheet for a pixel of an image; by default as many as make images 80 pixels wide.",
    lower_bound=1,
    upper_bound=100,
)
flags.DEFINE_bool("captions", True, "Write on the sheet what its images are.")
flags.DEFINE_bool("open", False, "Open the sheet, where there is a screen.")

WIDTH = 80


def write_sheet(images: np.ndarray, path: Path, columns: int | None, captions: Sequence[str] | None) -> None:
    """Writes a sheet as `data.save_grid` does, with the flags' scale, and opens it if asked."""
    from haim_tf import data

    scale = FLAGS.scale or -(-WIDTH // images.shape[2])
    data.save_grid(images, path, columns, captions if FLAGS.captions else None, scale)
    if FLAGS.open:
        open_picture(path)


def class_caption(label: int, class_names: Sequence[str] | None) -> str:
    """A class as a caption: its name up to the first comma, or its number."""
    return f"class {label}" if class_names is None else class_names[label].split(",")[0]
