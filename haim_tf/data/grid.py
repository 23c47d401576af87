"""`save_grid`: one picture of many images."""

import math
import os

import numpy as np

from haim_tf import files
from haim_tf.checks import require_int

_GAP = 2  # Pixels between images, white.


def save_grid(images: np.ndarray, path: str | os.PathLike, columns: int | None = None) -> None:
    """Writes a PNG sheet of images, row by row, white between them. A file that is already there is replaced
    only when the new one is complete.

    Args:
        images: uint8 (B, H, W, C), `C` 1 or 3.
        path: the `.png` file; its folder must exist.
        columns: images in a row; default: as square a sheet as can be.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: other images or another path than said above, or a path that cannot be written.

    Example:
        >>> save_grid(np.zeros((6, 28, 28, 1), "uint8"), "sheet.png", columns=3)
    """
    from PIL import Image

    images, path = np.asarray(images), files.absolute(path)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images must be uint8 (B, H, W, C), C 1 or 3, got {images.dtype} of shape {images.shape}"
        )
    columns = require_int("columns", columns, low=1, optional=True)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"path must be a file that ends in .png, got {path}")
    files.check_folder_above(path)

    count, height, width, channels = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), 255, "uint8")
    for i, image in enumerate(images):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    files.write_file(path, lambda file: picture.save(file, format="PNG"))
