"""Batches in an order that the seed and the step determine: training stops and goes on as if it never had."""

import copy
import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from haim_tf.checks import require_int, require_number
from haim_tf.data.image_data import ImageData


class Batches(keras.utils.PyDataset):
    """Batches of an `ImageData` for `fit`: batch `i` is a pure function of `seed` and `start_step + i`.

    The images are drawn epoch by epoch in a fresh seeded order, each once per epoch. A batch that reaches the
    end of an epoch goes on into the next one, so that all batches are full. Without `steps` there is no end,
    and `fit(batches, steps_per_epoch=n, epochs=e, shuffle=False)` takes the first `n * e` batches in order.
    After `k` steps, a run with `start_step=k` sees what the first one would have seen.

    NOTE: give `fit` `shuffle=False`: by default it shuffles the batches where there are `steps`, and warns
    that it cannot where there are none.

    `B` is `batch_size`; `H, W, C` one image.

    Args:
        data: an `ImageData`.
        batch_size: images in a batch.
        shuffle: False: in the data's own order.
        flip: mirror half of the images, drawn at random for each batch, left to right.
        turns: turn each image by none, one, two or three quarters, likewise; images must be square.
        balance: how evenly the classes are drawn, in 0..1: an image of a class of n images is drawn with a
            probability proportional to n ** -balance. 0: as they are; 1: all classes alike. Above 0 an image
            comes more or less often than once per epoch, which is as long as ever.
        seed: an int, 0 or more.
        start_step: how many batches to leave out at the start.
        steps: how many batches there are; None: no end.
        labels: False: leave out labels that the data has.
        codes: the images' codes, a list as `training.code_cache.cached_codes` gives, with those of the
            mirrored and turned images where there are `flip` and `turns`; None: none.
        crop: side of the square, aligned to the grids of `codes`, that is cut at random from each image;
            codes stay whole. None: whole images.

    Yields:
        `(images, labels)`, uint8 (B, H, W, C) and int32 (B,); `images` alone where the data has no labels
        or they are left out. With `codes` or `crop`, in place of the images a dict of `images` and, where
        there are, `codes`, a tuple of (B, h, w) of their own integers, and with both also `corner`, int32
        (B, 2), the row and column of each crop's first pixel.

    Raises:
        ValueError: an argument that is not what is said above.

    Example:
        >>> batches = Batches(ImageData(np.zeros((10, 8, 8, 1), "uint8")), batch_size=4, seed=1)
        >>> batches[0].shape
        (4, 8, 8, 1)
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        shuffle: bool = True,
        flip: bool = False,
        seed: int = 0,
        start_step: int = 0,
        steps: int | None = None,
        labels: bool = True,
        codes: Sequence[np.ndarray] | None = None,
        crop: int | None = None,
        turns: bool = False,
        balance: float = 0.0,
    ):
        # One worker: with more, Keras loses batches that it has read ahead when it renews an iterator.
        super().__init__(workers=1)
        _check_data(data)
        self.data = data
        self.batch_size = require_int("batch_size", batch_size, low=1)
        self.shuffle = shuffle
        self.flip = flip
        self.turns = turns
        self.balance = require_number("balance", balance, low=0, high=1)
        check_symmetries_and_balance(turns, self.balance, data)
        if self.balance and not shuffle:
            raise ValueError(f"shuffle must be True where there is balance, got {shuffle!r}")
        self.seed = require_int("seed", seed, low=0)
        self.start_step = require_int("start_step", start_step, low=0)
        self.steps = require_int("steps", steps, low=1, optional=True)
        self.labels = labels and data.labels is not None
        self.codes = codes
        self.crop = require_int("crop", crop, low=1, optional=True)
        self._own = slice(None)
        # The epochs on both sides of a batch.
        order = functools.partial(_epoch_order, self.seed, len(data), data.labels, self.balance)
        self._order = functools.lru_cache(maxsize=2)(order)
        if self.crop is not None:
            self._check_crop()

    def _check_crop(self):
        """The crop's corners lie on the coarsest grid's lines."""
        sides = self.data.image_shape[:2]
        coarsest = self.codes[-1].shape[2:] if self.codes else sides
        self._cell = sides[0] // coarsest[0]
        if self.crop % self._cell or self.crop > min(sides):
            raise ValueError(
                f"crop must be a multiple of {self._cell}, the side of a cell, up to {min(sides)}, "
                f"got {self.crop}"
            )

    def part(self, index: int, count: int) -> "Batches":
        """These batches' part `index` of `count` equal ones, as batches; no other part's images are read.

        Raises:
            ValueError: a batch size that `count` does not divide.

        Example:
            >>> batches = Batches(ImageData(np.zeros((10, 8, 8, 1), "uint8")), batch_size=4)
            >>> batches.part(0, 2)[0].shape
            (2, 8, 8, 1)
        """
        if self.batch_size % count:
            raise ValueError(
                f"batch_size must be a multiple of {count}, the number of replicas, got {self.batch_size}"
            )
        part = copy.copy(self)
        size = self.batch_size // count
        part._own = slice(index * size, (index + 1) * size)
        return part

    @property
    def num_batches(self) -> int | None:
        return self.steps

    def __getitem__(self, index: int) -> tuple | dict | np.ndarray:
        if index < 0 or (self.steps is not None and index >= self.steps):
            raise IndexError(f"Batch {index} of {self.steps or 'an endless number of'} batches.")
        chosen, symmetry, corner = self.drawn(index)
        images = np.asarray(self.data.images[chosen])
        for number in set(symmetry.tolist()) - {0}:
            images[symmetry == number] = transformed(images[symmetry == number], number, self.flip)
        x = images if self.crop is None and self.codes is None else {"images": images}
        if self.codes is not None:
            x["codes"] = tuple(codes[symmetry, chosen] for codes in self.codes)
        if self.crop is not None:
            places = [(slice(y, y + self.crop), slice(x, x + self.crop)) for y, x in corner]
            x["images"] = np.stack([image[place] for image, place in zip(images, places, strict=True)])
            if self.codes is not None:
                x["corner"] = corner
        return (x, self.data.labels[chosen]) if self.labels else x

    def drawn(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What batch `index` is made of: the images' rows in the data, int (B,); what each goes through, a
        number as `transformed` takes it, int (B,); with `crop` the crop's first row and column, int32 (B, 2).

        Example:
            >>> data = ImageData(np.zeros((10, 8, 8, 1), "uint8"))
            >>> Batches(data, batch_size=4, shuffle=False).drawn(1)
            (array([4, 5, 6, 7]), array([0, 0, 0, 0]), None)
        """
        step = self.start_step + index
        symmetry = self._symmetries(np.random.default_rng((self.seed, 1, step)))
        corner = None if self.crop is None else self._corners(np.random.default_rng((self.seed, 2, step)))
        return self._image_indices(step)[self._own], symmetry, corner

    def _symmetries(self, rng):
        """What each image goes through, a number as `transformed` takes it, int (B,)."""
        mirrored = rng.random(self.batch_size) < 0.5 if self.flip else np.zeros(self.batch_size, bool)
        quarters = rng.integers(4, size=self.batch_size) if self.turns else 0
        return (mirrored + (1 + self.flip) * quarters)[self._own]

    def _corners(self, rng):
        """A place for each image's crop, on the lines of the coarsest grid, int32 (B, 2)."""
        places = [(side - self.crop) // self._cell + 1 for side in self.data.image_shape[:2]]
        return (rng.integers(places, size=(self.batch_size, 2))[self._own] * self._cell).astype("int32")

    def _image_indices(self, step):
        count = len(self.data)
        epochs, places = np.divmod(step * self.batch_size + np.arange(self.batch_size), count)
        if not self.shuffle:
            return places
        return np.concatenate([self._order(e)[places[epochs == e]] for e in np.unique(epochs).tolist()])


def _epoch_order(seed, count, labels, balance, epoch):
    """Indices of an epoch's images, in the order in which they are drawn, int (count,)."""
    rng = np.random.default_rng((seed, 0, epoch))
    order = rng.permutation(count)
    if not balance:
        return order
    # Systematic resampling, class by class: each image, and each class, comes within one of its expected
    # number.
    order = order[np.argsort(labels[order], kind="stable")]
    labels = labels[order]
    ends = np.cumsum(np.bincount(labels)[labels] ** -balance)
    wanted = (np.arange(count) + rng.random()) * (ends[-1] / count)
    return rng.permutation(order[np.searchsorted(ends, wanted, side="right").clip(max=count - 1)])


def num_symmetries(flip: bool, turns: bool) -> int:
    """How many images each image stands for: 1, 2, 4 or 8."""
    return (1 + flip) * (4 if turns else 1)


def transformed(images: np.ndarray, number: int, flip: bool) -> np.ndarray:
    """Images (B, H, W, ...) under one of the `num_symmetries`; 0: as they are.

    With `flip` an odd number mirrors them left to right; then they are turned anticlockwise by as many
    quarters as half the number (without `flip`, as the number) says.
    """
    quarters, mirrored = divmod(number, 2) if flip else (number, 0)
    return np.rot90(images[:, :, ::-1] if mirrored else images, quarters, axes=(1, 2))


def check_symmetries_and_balance(turns: bool, balance: float, data: ImageData) -> None:
    """A ValueError where images cannot be turned, or classes not be drawn evenly, for want of labels."""
    height, width = data.image_shape[:2]
    if turns and height != width:
        raise ValueError(f"turns must be false unless images are square, got {height}x{width} ({data.name})")
    if balance and data.labels is None:
        raise ValueError(f"balance must be 0 unless images have labels, got {balance} ({data.name})")


def in_order(data: ImageData, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Goes once through an `ImageData` in its own order, for evaluation.

    Args:
        data: an `ImageData`.
        batch_size: images in a batch; the last batch may hold fewer.

    Yields:
        `(images, labels)`, uint8 (n, H, W, C) and int32 (n,), or None for labels where the data has none.

    Raises:
        ValueError: `batch_size` is no integer of at least 1.

    Example:
        >>> data = ImageData(np.zeros((10, 8, 8, 1), "uint8"))
        >>> [len(images) for images, labels in in_order(data, 4)]
        [4, 4, 2]
    """
    _check_data(data)
    batch_size = require_int("batch_size", batch_size, low=1)
    parts = (slice(i, i + batch_size) for i in range(0, len(data), batch_size))
    labels = data.labels
    return ((np.asarray(data.images[p]), None if labels is None else labels[p]) for p in parts)


def _check_data(data):
    if not isinstance(data, ImageData):
        raise ValueError(f"data must be an ImageData, as haim_tf.data.load gives, got {type(data).__name__}")
