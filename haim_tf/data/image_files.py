"""`ImageFiles`: files decoded on access; and the one rule by which an image takes another shape."""

import copy
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import PIL.Image

from haim_tf.data.reading import progress, reading
from haim_tf.files import expanded

# `(H, W, C)`, C 1 or 3.
ImageShape = tuple[int, int, int]

_GREY_MODES = ("1", "L", "LA")
# What Pillow would clip to 8 bits without a word.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# Formats that hold 8 bits per channel and no more; how to tell of the others, `_bits_per_channel` knows.
_EIGHT_BIT_FORMATS = ("JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TGA", "PCX")
# EXIF orientations that show a picture otherwise than its pixels lie.
_TURNED = range(2, 9)
# How the files of a format end, where nothing was cut off.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


class ImageFiles:
    """Image files as a uint8 array (N, H, W, C) that is decoded on access, each time anew.

    Args:
        paths: the files.
        image_shape: `(H, W, C)` that each image is brought to as `fit_image` does; None: the files' own size,
            the same for all, with 1 channel if every file is grey, otherwise 3.

    Raises:
        ValueError: sizes that differ; more than 8 bits per channel, or who knows how many; a file that is no
            image or is cut off (found at once) or whose pixels cannot be decoded (found on access).
    """

    def __init__(self, paths: Iterable[str | os.PathLike], image_shape: ImageShape | None = None):
        # Absolute, for they are read later on, wherever the process is then.
        self.paths = np.array([os.path.abspath(path) for path in paths], dtype=object)
        headers = [_read_header(path) for path in progress(self.paths, "image headers")]
        if image_shape is None:
            first = width, height = headers[0][0]
            for path, (size, _) in zip(self.paths, headers, strict=True):
                if size != first:
                    raise ValueError(
                        "images must be of one size, unless image_shape=(H, W, C) is given, got "
                        f"(width, height) {first} of {self.paths[0]} and {size} of {path}"
                    )
            image_shape = (height, width, 1 if all(grey for _, grey in headers) else 3)
        self.shape = (len(self.paths), *image_shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: int | slice | np.ndarray) -> np.ndarray:
        paths = self.paths[indices]
        if isinstance(paths, str):
            return self._decode(paths)
        images = np.empty((len(paths), *self.shape[1:]), "uint8")
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock.
            for image, decoded in zip(images, pool.map(self._decode, paths), strict=True):
                image[...] = decoded
        return images

    def part(self, rows: slice) -> "ImageFiles":
        """The files of a slice, still not decoded."""
        files = copy.copy(self)
        files.paths = self.paths[rows]
        files.shape = (len(files.paths), *self.shape[1:])
        return files

    def _decode(self, path):
        from PIL import Image

        with reading(path, "an image"), Image.open(path) as image:
            return fit_image(image, self.shape[1:])


def turned(image: "PIL.Image.Image") -> int | None:
    """The EXIF orientation of a Pillow image that is turned or mirrored when it is shown, else `None`."""
    from PIL import ExifTags

    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TURNED else None


def read_image(path: str | os.PathLike, channels: int) -> np.ndarray:
    """An image file's pixels as they are, uint8 `(H, W, C)`.

    Raises:
        ValueError: a file that is no image, or one that needs more than `channels`: 1 for grey, 3 for colour
            (palettes too); with transparency, several pictures (animations, pages), more than 8 bits per
            channel, or of a format of which that cannot be told; one that its EXIF orientation turns or
            mirrors when it is shown, of which pixels alone know nothing (TIFF files are read as shown).

    Example:
        >>> read_image("leaf.png", channels=3).shape
        (256, 256, 3)
    """
    from PIL import Image

    path = expanded(path)
    with reading(path, "an image"), Image.open(path) as image:
        bits, frames = _bits_per_channel(image, path), getattr(image, "n_frames", 1)
        if frames == 1 and bits is not None and bits <= 8:
            image.load()
        orientation = turned(image)
    wanted = {1: "L", 3: "RGB"}[channels]
    accepted = (
        f"{path} must be an image of {channels} channel{'s' if channels > 1 else ''} of 8 bits (mode "
        f"{wanted}), for converting it would change it, got"
    )
    if frames > 1:
        raise ValueError(f"{accepted} {frames} pictures in one file")
    if bits is None:
        raise ValueError(f"{accepted} the format {image.format}, whose bits per channel are unknown")
    if bits > 8:
        raise ValueError(f"{accepted} {bits} bits per channel")
    if orientation:
        raise ValueError(
            f"{accepted} EXIF orientation {orientation}: turn its pixels and take that out first"
        )
    if "transparency" in image.info:
        raise ValueError(f"{accepted} mode {image.mode} with transparency")
    if image.mode == "P" and image.palette.mode == "RGB":
        image = image.convert("RGB")
    if image.mode != wanted:
        raise ValueError(f"{accepted} mode {image.mode}")
    return np.asarray(image).reshape(image.height, image.width, channels)


def _read_header(path):
    """`((width, height), is_grey)` of an image file, its pixels left alone unless it may be cut off."""
    from PIL import Image

    with reading(path, "an image"), Image.open(path) as image:
        size, mode, bits = image.size, image.mode, _bits_per_channel(image, path)
        # Something may follow a whole picture: what does not end as it should is tried.
        if bits is not None and bits <= 8 and not _ends_well(image.format, path):
            image.load()
    if bits is None or bits > 8:
        found = f"the format {image.format}" if bits is None else f"{bits} bits per channel"
        raise ValueError(f"{path} must be an 8-bit image, got {found} (mode {mode})")
    return size, mode in _GREY_MODES


def _ends_well(kind, path):
    """Whether the end of a file says that nothing of it is missing."""
    end = _ENDS.get(kind)
    if end is None:
        return False
    with open(path, "rb") as file:
        file.seek(-min(len(end), os.path.getsize(path)), os.SEEK_END)
        return file.read() == end


def _bits_per_channel(image, path):
    """How many bits a channel has in the file of an opened image, or None where that cannot be told.

    Its mode does not tell: Pillow reads PNG and TIFF files of 3 x 16 bits as RGB, of 8.
    """
    if image.mode in _DEEP_MODES:
        return 16 if image.mode.startswith("I;16") else 32
    if image.format in _EIGHT_BIT_FORMATS:
        return 8
    if image.format == "PNG":
        with open(path, "rb") as file:
            return file.read(25)[24]  # Of the chunk that comes first, IHDR.
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample.
    if image.format == "PPM":
        args = image.tile[0].args  # Rescaled from another greatest value than 255, which follows the mode.
        return 8 if isinstance(args, str) or args[1] in (0, 255) else int(args[1]).bit_length()
    return None


def fit_image(image: "PIL.Image.Image", image_shape: ImageShape) -> np.ndarray:
    """A Pillow image as uint8 `(H, W, C)`: converted to grey or RGB as Pillow does (alpha is dropped),
    cropped around its centre to the aspect ratio `W : H`, resized with the antialiasing Lanczos filter."""
    from PIL import Image, ImageOps

    height, width, channels = image_shape
    image = image.convert("L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(image_shape)


def fit_array(image: np.ndarray, image_shape: ImageShape) -> np.ndarray:
    """One uint8 image `(H, W, C)` brought to `image_shape`, as `fit_image` does."""
    if image.shape == tuple(image_shape):
        return image
    from PIL import Image

    return fit_image(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), image_shape)
