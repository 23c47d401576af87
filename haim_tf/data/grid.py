"""`save_grid`: one picture of many images."""

import math
import os
from collections.abc import Sequence

import numpy as np

from haim_tf import files
from haim_tf.checks import require_int

_GAP = 2  # Pixels between images, white.
_LETTERS = 11  # The height of captions, in pixels, and of their line.
_LINE = 15


def save_grid(
    images: np.ndarray,
    path: str | os.PathLike,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    scale: int = 1,
) -> None:
    """Writes a PNG sheet of images, row by row, white between them. A file that is already there is replaced
    only when the new one is complete.

    Args:
        images: uint8 (B, H, W, C), `C` 1 or 3.
        path: the `.png` file; its folder must exist.
        columns: images in a row; default: as square a sheet as has full rows.
        captions: what stands above each image, B texts, or above each column, as many texts as there are
            columns; cut to the width of an image.
        scale: how many pixels of the sheet an image's pixel is wide and high.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: other images, captions or another path than said above, a sheet that memory has no room
            for, or a path that cannot be written.

    Example:
        >>> images = np.zeros((6, 28, 28, 1), "uint8")
        >>> save_grid(images, "sheet.png", columns=3, captions=["a", "b", "c"], scale=2)
    """
    images, path = np.asarray(images), files.absolute(path)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"images must be uint8 (B, H, W, C), C 1 or 3, got {images.dtype} of shape {images.shape}"
        )
    columns = require_int("columns", columns, low=1, optional=True)
    scale = require_int("scale", scale, low=1)
    files.check_folder_above(path)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"path must be a file that ends in .png, got {path}")

    try:
        picture = _sheet(images, columns, captions, scale)
    except MemoryError:
        raise ValueError(f"the sheet must fit in memory: scale must be smaller, got {scale}") from None
    files.write_file(path, lambda file: picture.save(file, format="PNG"))


def _sheet(images, columns, captions, scale):
    """The sheet, a Pillow image."""
    from PIL import Image

    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    columns = min(columns or sensible_columns(count), count)
    rows = math.ceil(count / columns)
    captions = [] if captions is None else [str(caption) for caption in captions]
    if captions and len(captions) not in (columns, count):
        raise ValueError(
            f"captions must be {columns}, one a column, or {count}, one an image, got {len(captions)}"
        )
    # The line above a row, of all rows or of the first one.
    lines = [_LINE * (len(captions) > columns * row) for row in range(rows)]
    tops = [sum(lines[: row + 1]) + row * (height + _GAP) for row in range(rows)]
    shape = (tops[-1] + height, columns * (width + _GAP) - _GAP, channels)
    sheet = np.full(shape, 255, "uint8")
    for i, image in enumerate(images):
        top, left = tops[i // columns], i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    for i, caption in enumerate(captions):
        _write(picture, caption, i % columns * (width + _GAP), tops[i // columns] - _LINE, width)
    return picture


def sensible_columns(count: int) -> int:
    """How many columns a sheet of so many images gets: as many as make it square, or up to twice as many
    where no row is left short then.

    Example:
        >>> [sensible_columns(count) for count in (2, 7, 9, 10, 32, 40)]
        [2, 3, 3, 5, 8, 8]
    """
    least = math.ceil(math.sqrt(count))
    return next((columns for columns in range(least, 2 * least) if count % columns == 0), least)


def _write(picture, text, left, top, width):
    """Draws a text, cut to a width, in black."""
    from PIL import ImageDraw, ImageFont

    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_LETTERS)
    whole = text
    while text and draw.textlength(text if text == whole else f"{text}…", font=font) > width:
        text = text[:-1]
    shown = text if text == whole else f"{text.rstrip()}…"
    draw.text((left, top), shown, fill=0 if picture.mode == "L" else (0, 0, 0), font=font)
