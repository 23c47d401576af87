"""Picture files, as `compress` and folders of images read them."""

import io

import numpy as np
from damage import damaged_bytes, pick
from PIL import Image

from haim_tf.data import ImageData, read_image
from haim_tf.data.image_files import ImageFiles

FORMATS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("L", "P"),
    "tif": ("1", "L", "P", "RGB", "RGBA", "CMYK", "F", "I", "I;16", "LAB"),
    "ppm": ("1", "L", "RGB"),
    "tga": ("L", "P", "RGB", "RGBA"),
    "ico": ("RGBA",),
    "jp2": ("L", "RGB"),
}


def picture(rng, suffix=None, mode=None):
    """`(suffix, bytes)` of a small picture of a random format and mode, some animated or turned by EXIF."""
    suffix = suffix or pick(rng, list(FORMATS))
    mode = mode or pick(rng, FORMATS[suffix])
    size = int(rng.integers(1, 24)), int(rng.integers(1, 24))
    noise = Image.fromarray(rng.integers(0, 256, (*size, 3), "uint8"))
    image = noise.convert("L").convert(mode) if mode in ("F", "I", "I;16") else noise.convert(mode)
    options = {}
    if suffix in ("gif", "png", "webp", "tif") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [image.copy()]}
    if suffix in ("png", "jpg", "webp", "tif") and rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112] = pick(rng, [0, 1, 3, 6, 8, 9, 200])
        options["exif"] = exif
    if suffix == "png" and mode in ("L", "P", "RGB") and rng.random() < 0.2:
        options["transparency"] = {"RGB": (1, 2, 3)}.get(mode, 0)
    image.save(buffer := io.BytesIO(), format=Image.registered_extensions()[f".{suffix}"], **options)
    return suffix, buffer.getvalue()


class Pictures:
    """One file, read exactly as `compress` does and brought to a shape as folders are."""

    LIMIT = 60

    def __init__(self, folder):
        self.folder = folder

    def attempt(self, rng):
        suffix, content = picture(rng)
        # A suffix says nothing about what is in a file.
        path = self.folder / f"picture.{pick(rng, list(FORMATS)) if rng.random() < 0.1 else suffix}"
        path.write_bytes(damaged_bytes(rng, content))
        if rng.random() < 0.5:
            channels = pick(rng, [1, 3])
            image = read_image(path, channels)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == channels
        else:
            shape = pick(rng, [None, (8, 8, 1), (5, 9, 3)])
            data = ImageData(ImageFiles([path], shape))
            assert data.images[[0]].shape == (1, *data.image_shape)
