"""`save_grid`: one picture of many images."""

import math
import os
from pathlib import Path

import numpy as np

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

    images, path = np.asarray(images), Path(path)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}. Accepted: uint8 (B, H, W, C), C 1 or 3."
        )
    if columns is not None and (not isinstance(columns, (int, np.integer)) or columns < 1):
        raise ValueError(f"columns is {columns!r}. Accepted: an int, 1 or more, or None.")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"Cannot write a sheet of images to {path}. Accepted: a file that ends in .png.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")

    count, height, width, channels = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), 255, "uint8")
    for i, image in enumerate(images):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(unfinished, format="PNG")
        os.replace(unfinished, path)
    except OSError as error:
        raise ValueError(f"Cannot write {path}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
