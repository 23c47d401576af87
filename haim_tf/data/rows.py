"""`Rows`: some of the images of an array, read on access."""

import numpy as np


class Rows:
    """Rows of an array (N, H, W, C) as an array (n, H, W, C): of one mapped from a file, only what is asked
    for comes into memory.

    Args:
        images: the array.
        rows: (n,) ints, which rows of it.

    Example:
        >>> images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
        >>> Rows(images, np.array([1, 4, 5]))[1:].ravel()
        array([4, 5], dtype=uint8)
    """

    def __init__(self, images: np.ndarray, rows: np.ndarray):
        self.images, self.rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: int | slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.images[self.rows[indices]])

    def part(self, rows: slice) -> "Rows":
        """The rows of a slice, still not read."""
        return Rows(self.images, self.rows[rows])
