"""The words for a part of a data set: `"train"`, `"val[:50%]"`."""

import re
from collections.abc import Collection

Bounds = tuple[str | None, str | None]

HELD_OUT = ("validation", "val", "test")
_SPLIT = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse_split(split: str) -> tuple[str, Bounds]:
    """`"train[:90%]"` -> `("train", (None, "90%"))`."""
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if not match:
        raise ValueError(f"The split is {split!r}. Accepted: name or name[a:b], a and b images or percent.")
    return match[1], match.groups()[1:]


def to_slice(bounds: Bounds, count: int, name: object) -> slice:
    """The slice of `count` images that the bounds of `parse_split` ask for; percents round to the nearest."""
    text = "[{}:{}]".format(*(bound or "" for bound in bounds))

    def position(bound, default):
        if bound is None:
            return default
        number = round(int(bound[:-1]) * count / 100) if bound.endswith("%") else int(bound)
        if abs(number) > count:
            raise ValueError(f"{name}: the slice {text} goes beyond its {count} images.")
        return number + count if bound.startswith("-") else number

    part = slice(position(bounds[0], 0), position(bounds[1], count))
    if part.start >= part.stop:
        raise ValueError(f"{name}: the slice {text} of its {count} images is empty.")
    return part


def find_split(split: str, available: Collection[str]) -> str | None:
    """The name under which `available` has the split, or None. Held-out splits stand in for each other."""
    others = HELD_OUT if split in HELD_OUT else ()
    return next((name for name in (split, *others) if name in available), None)


def choose_split(split: str, available: Collection[str], name: object) -> str:
    """As `find_split`, with a ValueError in place of None."""
    chosen = find_split(split, available)
    if chosen is None:
        raise ValueError(f"{name} has no split {split!r}. Accepted: {', '.join(sorted(available))}.")
    return chosen
