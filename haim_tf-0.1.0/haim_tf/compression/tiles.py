"""Images of any size as tiles of the model's size, and which tiles run together in a batch."""

from collections.abc import Iterable, Sequence

import numpy as np


def count(height: int, width: int, shape: tuple[int, ...]) -> int:
    """How many tiles of `shape` `(h, w, ...)` cover an image."""
    return -(-height // shape[0]) * -(-width // shape[1])


def split(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Tiles `(N, h, w, C)` of an image `(H, W, C)`, in raster order; its last rows and columns are repeated
    where the tiles reach beyond it."""
    rows, columns = -(-image.shape[0] // shape[0]), -(-image.shape[1] // shape[1])
    missing = (rows * shape[0] - image.shape[0], columns * shape[1] - image.shape[1])
    image = np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], "edge")
    image = image.reshape(rows, shape[0], columns, shape[1], -1)
    return image.swapaxes(1, 2).reshape(rows * columns, *shape)


def join(tiles: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image `(height, width, C)` that `split` made the tiles of."""
    h, w, channels = tiles.shape[1:]
    rows, columns = -(-height // h), -(-width // w)
    image = tiles.reshape(rows, columns, h, w, channels).swapaxes(1, 2)
    return image.reshape(rows * h, columns * w, channels)[:height, :width]


def choose_slots(counts: Iterable[int], size: int) -> list[int]:
    """The slot of each file's first tile, so that small files share a batch of `size` tiles."""
    slots, free = [], 0
    for tiles in counts:
        if tiles > size or free + tiles > size:
            free = 0
        slots.append(free)
        free = (free + tiles) % size
    return slots


def plan(counts: Sequence[int], slots: Sequence[int], size: int) -> list[list[tuple[int, slice, slice]]]:
    """Puts the files' tiles into batches.

    A file's tiles go in groups of at most `size` into successive batches, each from its slot on; files whose
    slots do not collide share batches. What a file's own program run sees does not depend on the others.

    Args:
        counts: tiles of each file.
        slots: slot of each file's first tile (0 for files of more than `size` tiles).
        size: tiles in a batch.

    Returns:
        A list of batches, each a list of `(file, its tiles, slots)`, the latter two slices.
    """
    batches, taken, opened = [], [], 0
    for file, (tiles, slot) in enumerate(zip(counts, slots, strict=True)):
        earliest = opened
        for start in range(0, tiles, size):
            stop = min(start + size, tiles)
            place = slice(slot, slot + stop - start)
            batch = earliest
            while batch < len(batches) and taken[batch][place].any():
                batch += 1
            if batch == len(batches):
                batches.append([])
                taken.append(np.zeros(size, bool))
            taken[batch][place] = True
            batches[batch].append((file, slice(start, stop), place))
            earliest = batch + 1
        while opened < len(batches) and taken[opened].all():
            opened += 1
    return batches
