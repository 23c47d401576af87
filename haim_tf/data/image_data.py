"""`ImageData`: checked images with their labels."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from haim_tf.checks import require_int
from haim_tf.data.image_files import ImageFiles, ImageShape
from haim_tf.data.rows import Rows
from haim_tf.data.splits import ALL

# How many images, evenly spaced, stand for all of them.
FINGERPRINT_IMAGES = 1000
# At most how many are in memory for that.
FINGERPRINT_BYTES = 1 << 28
# Images that are no array, but give one when they are asked for.
ON_ACCESS = (ImageFiles, Rows)


class ImageData:
    """Images, their labels and what is known about them.

    `N` is the number of images; `H, W, C` one image.

    Args:
        images: (N, H, W, C) or (N, H, W), `C` 1 or 3. uint8, or another number type whose values are all
            whole and in 0..255. What is read on access (`ImageFiles`, `Rows`) stays as it is.
        labels: (N,) or (N, 1) integers, 0 or more; or None.
        class_names: the name of each label's class, or None.
        name: what the data is called in messages.
        split: which part of its source it is.

    Attributes:
        images: (N, H, W, C), uint8. An int array as index gives (n, H, W, C). Files are decoded on access.
        labels: (N,) int32, or None.
        class_names: a list of str, or None.
        image_shape: `(H, W, C)`.
        paths: (N,) str array, the absolute path of each image's file; None: the images are not of files each.
        name: as given; bytes in it that are no UTF-8 are written out.
        split: as given; of data from `load` what was really read: the split that was found, "all" where the
            source has none, and the slice of it, such as "test[:50%]" or "all[90%:]".

    Raises:
        ValueError: a wrong rank, shape, dtype or value; labels that do not fit images or class names; class
            names that are no UTF-8.

    Example:
        >>> data = ImageData(np.zeros((5, 28, 28), "uint8"), labels=[0, 1, 2, 1, 0])
        >>> len(data), data.image_shape, data.images[[0, 3]].shape
        (5, (28, 28, 1), (2, 28, 28, 1))
    """

    def __init__(
        self,
        images: np.ndarray | ImageFiles | Rows,
        labels: Sequence[int] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        name: str = "images",
        split: str = ALL,
    ):
        self.name = printable(str(name))
        self.split = split
        self.images = images if isinstance(images, ON_ACCESS) else check_images(images, self.name)
        self.class_names = None if class_names is None else self._check_names(class_names)
        self.labels = None if labels is None else self._check_labels(labels)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> ImageShape:
        return tuple(self.images.shape[1:])

    @property
    def paths(self) -> np.ndarray | None:
        return self.images.paths.astype(str) if isinstance(self.images, ImageFiles) else None

    def in_file_order(self, rows: np.ndarray) -> np.ndarray:
        """The order, ints `(n,)`, that puts rows, ints `(n,)`, as their files lie: folder by folder, name by
        name. As they are where images are not of files each.

        `load` shuffles the images of a folder with classes; what is written of them is easier found so.

        Example:
            >>> data = ImageData(np.zeros((5, 8, 8), "uint8"))
            >>> data.in_file_order(np.array([3, 1]))
            array([0, 1])
        """
        if self.paths is None:
            return np.arange(len(rows))
        parts = [Path(path).parts for path in self.paths[rows]]
        return np.array(sorted(range(len(rows)), key=parts.__getitem__))

    def mixed(self) -> "ImageData":
        """The same images in a fixed shuffled order.

        Example:
            >>> data = ImageData(np.zeros((5, 8, 8), "uint8"), [0, 0, 0, 1, 1], ["cat", "dog"])
            >>> sorted(data.mixed().labels.tolist())
            [0, 0, 0, 1, 1]
        """
        return self._rows(np.random.default_rng(0).permutation(len(self)))

    def split_off(self, count: int) -> tuple["ImageData", "ImageData"]:
        """All but the last `count` images, and the last `count`, as two `ImageData`.

        Raises:
            ValueError: one of the two would be empty.

        Example:
            >>> data = ImageData(np.zeros((5, 8, 8), "uint8"), [0, 1, 1, 0, 1], ["cat", "dog"])
            >>> most, rest = data.split_off(2)
            >>> len(most), len(rest)
            (3, 2)
        """
        count = require_int(f"{self.name}: the count to split off", count, low=1, high=len(self) - 1)
        return self._rows(slice(None, -count)), self._rows(slice(-count, None))

    def _rows(self, rows):
        if isinstance(self.images, ON_ACCESS):
            images = self.images.part(rows)
        elif isinstance(self.images, np.memmap) and not isinstance(rows, slice):
            images = Rows(self.images, rows)  # Picked from the file, they would all come into memory.
        else:
            images = self.images[rows]
        labels = None if self.labels is None else self.labels[rows]
        return ImageData(images, labels, self.class_names, self.name, self.split)

    def with_labels(
        self, labels: Sequence[int] | np.ndarray, class_names: Sequence[str] | None
    ) -> "ImageData":
        """The same images with other labels, int (N,), and class names.

        Raises:
            ValueError: labels that do not fit the images or the names.

        Example:
            >>> data = ImageData(np.zeros((5, 8, 8), "uint8"), [0, 1, 1, 0, 1], ["cat", "dog"])
            >>> data.with_labels([0] * 5, ["pet"]).class_names
            ['pet']
        """
        return ImageData(self.images, labels, class_names, self.name, self.split)

    def fingerprint(self) -> dict:
        """What these images are, to tell them from others: a dict of the number of `images`, the
        `image_shape`, the `class_names` and a `sha256` of all labels and of 1,000 evenly spaced images.

        Example:
            >>> data = ImageData(np.zeros((5, 8, 8), "uint8"), [0, 1, 1, 0, 1], ["cat", "dog"])
            >>> sorted(data.fingerprint())
            ['class_names', 'image_shape', 'images', 'sha256']
        """
        digest = hashlib.sha256()
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels))
        places = np.unique(np.linspace(0, len(self) - 1, FINGERPRINT_IMAGES).astype(int))
        step = max(1, min(100, FINGERPRINT_BYTES // math.prod(self.image_shape)))
        for start in range(0, len(places), step):
            digest.update(np.ascontiguousarray(self.images[places[start : start + step]]))
        return {
            "images": len(self),
            "image_shape": list(self.image_shape),
            "class_names": self.class_names,
            "sha256": digest.hexdigest(),
        }

    def __repr__(self):
        return f"<ImageData {self.name!r}: {len(self)} images of shape {self.image_shape}>"

    def _check_names(self, names):
        if isinstance(names, (str, bytes)) or np.ndim(names) != 1:  # A text would be one name a letter.
            raise ValueError(f"{self.name}: class names must be a list of names, got {str(names)[:60]}")
        return [self._check_name(name) for name in names]

    def _check_name(self, name):
        """A class' name as str; JSON, cards and terminals take no other than UTF-8."""
        try:
            name = name.decode() if isinstance(name, bytes) else str(name)
            name.encode()
        except UnicodeError:
            shown = name if isinstance(name, bytes) else printable(name)
            raise ValueError(f"{self.name}: class names must be UTF-8, got {shown!r}") from None
        return name

    def _check_labels(self, labels):
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(self),):
            raise ValueError(
                f"{self.name}: labels must be of shape ({len(self)},), one per image, got {labels.shape}"
            )
        if labels.dtype.kind not in "iu":
            raise ValueError(f"{self.name}: labels must be integers, got {labels.dtype}")
        limit = np.iinfo("int32").max if self.class_names is None else len(self.class_names) - 1
        if labels.min() < 0 or labels.max() > limit:
            raise ValueError(f"{self.name}: labels must be in 0..{limit}, got {labels.min()}..{labels.max()}")
        return labels.astype("int32")


def printable(text: str) -> str:
    """A text that any file and terminal takes: bytes of a path that are no UTF-8 are written out.

    Example:
        >>> printable("caf\\udce9")
        'caf\\\\udce9'
    """
    return text.encode(errors="backslashreplace").decode()


def check_images(images: np.ndarray, name: str) -> np.ndarray:
    """`images` as uint8 (N, H, W, C), or a ValueError that begins with `name`."""
    images = np.asanyarray(images)
    accepted = f"{name}: images must be (N, H, W, C) with C 1 or 3, or (N, H, W)"
    if images.ndim == 3 and images.shape[-1] in (1, 3):
        raise ValueError(f"{accepted}, got {images.shape}, which looks like a single image")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"{accepted}, got {images.shape}")
    if 0 in images.shape:
        raise ValueError(f"{accepted}, got no images, shape {images.shape}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: images must be uint8, or whole numbers in 0..255, got dtype {images.dtype}"
        )
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # So put, it holds for NaN as well.
        raise ValueError(f"{name}: images must be whole numbers in 0..255, got values in {low}..{high}")
    converted = images.astype("uint8")
    if not np.array_equal(converted, images):
        raise ValueError(
            f"{name}: images must be whole numbers in 0..255 (round them; scale them first if they are in "
            f"0..1), got other values, in {low}..{high}"
        )
    return converted
