"""The words for a part of a data set: `"train"`, `"val[:50%]"`."""

import re
from collections.abc import Collection, Container

import numpy as np

from haim_tf.data.reading import say

# What a source without splits is, whatever it is asked for.
ALL = "all"
HELD_OUT = ("validation", "val", "valid", "test")
_SPLIT = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, tuple[str | None, str | None]]:
    """`"train[:90%]"` -> `("train", (None, "90%"))`."""
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if not match:
        raise ValueError(f"split must be name or name[a:b], a and b images or percent, got {split!r}")
    return match[1], match.groups()[1:]


def describe(split: str, bounds: tuple[str | None, str | None]) -> str:
    """`("train", (None, "90%"))` -> `"train[:90%]"`, what `parse_split` took apart."""
    return split if bounds == (None, None) else "{}[{}:{}]".format(split, *(bound or "" for bound in bounds))


def warn_without_splits(split: str, bounds: tuple[str | None, str | None], name: str, count: int) -> None:
    """Says that the whole of a source stands for a part kept out of training, where it is asked for one."""
    if split in HELD_OUT and bounds == (None, None):
        say(
            f"{name} has no splits: {split!r} is all of its {count} images, whatever was trained on; "
            f"{ALL}[:90%] and {ALL}[90%:], for example, are parts that share none"
        )


def to_slice(bounds: tuple[str | None, str | None], count: int, name: str) -> slice:
    """The slice of `count` images that the bounds of `parse_split` ask for; percents round to the nearest."""
    text = "[{}:{}]".format(*(bound or "" for bound in bounds))

    def position(bound, default):
        if bound is None:
            return default
        number = round(int(bound[:-1]) * count / 100) if bound.endswith("%") else int(bound)
        if abs(number) > count:
            raise ValueError(f"{name}: split must lie within its {count} images, got the slice {text}")
        return number + count if bound.startswith("-") else number

    part = slice(position(bounds[0], 0), position(bounds[1], count))
    if part.start >= part.stop:
        raise ValueError(
            f"{name}: split must hold some of its {count} images, got the slice {text}, which is empty"
        )
    return part


def mixed_rows(part: slice, count: int) -> slice | np.ndarray:
    """Which of `count` images without splits a slice takes: of a fixed shuffled order, so that it mixes the
    classes of a source that is sorted by them; in their own order. All of them stay a slice."""
    if part == slice(0, count):
        return part
    return np.sort(np.random.default_rng(0).permutation(count)[part])


def find_split(split: str, available: Container[str]) -> str | None:
    """The name under which `available` has the split, or None. Held-out splits stand in for each other."""
    others = HELD_OUT if split in HELD_OUT else ()
    return next((name for name in (split, *others) if name in available), None)


def choose_split(split: str, available: Collection[str], name: str) -> str:
    """As `find_split`, with a ValueError in place of None."""
    chosen = find_split(split, available)
    if chosen is None:
        raise ValueError(f"{name}: split must be one of {', '.join(sorted(available))}, got {split!r}")
    return chosen
