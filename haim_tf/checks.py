"""Checks of what people hand over: a wrong value is a ValueError, "<name> must be <what>, got <value>"."""

import math
import operator
from collections.abc import Iterable
from typing import Any

# How a model may be sampled: each setting's least and greatest value.
SAMPLING = {"temperature": (0.0, 100.0), "top_p": (1e-6, 1.0), "guidance": (0.0, 100.0)}


def require_int(
    name: str, value: Any, low: int | None = None, high: int | None = None, optional: bool = False
) -> int | None:
    """`value` as an int in `low..high`, whatever integer type it is of (NumPy's, a 0-d array of them).

    Args:
        name: what the message calls it.
        value: to be checked; a bool is no integer.
        low, high: bounds, both included; `None`: none.
        optional: whether `None` will do as well; it comes back as it is.

    Raises:
        ValueError: it is no integer, or out of bounds.

    Example:
        >>> require_int("num", np.int64(3), low=1)
        3
    """
    if value is None and optional:
        return None
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        number = None
    too_small = number is not None and low is not None and number < low
    if number is None or too_small or (high is not None and number > high):
        if high is not None:
            bounds = f" in {low}..{high}"
        else:
            bounds = "" if low is None else f" of at least {low}"
        alternative = " or None" if optional else ""
        raise ValueError(f"{name} must be an integer{bounds}{alternative}, got {value!r}")
    return number


def require_positive_integers(**values: Any) -> tuple[int, ...]:
    """The arguments as ints, in their order; a ValueError names the first that is no integer of at least 1.

    Example:
        >>> require_positive_integers(width=np.int64(64), blocks=2)
        (64, 2)
    """
    return tuple(require_int(name, value, low=1) for name, value in values.items())


def require_number(
    name: str,
    value: Any,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
    high: float | None = None,
) -> float:
    """`value` as a float within the bounds, whatever number type it is of.

    Args:
        name: what the message calls it.
        value: to be checked; a bool or a text is no number, and neither are NaN and infinity.
        low, high: bounds, included. above, below: bounds, excluded. `None`: none.

    Raises:
        ValueError: it is no number, or out of bounds.

    Example:
        >>> require_number("decay", np.float64(0.5), low=0, below=1)
        0.5
    """
    try:
        number = _number(value)
    except (TypeError, ValueError):
        number = float("nan")
    fits = math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high)
    if not fits or (above is not None and number <= above) or (below is not None and number >= below):
        bounds = [f"of at least {low}"] if low is not None else []
        bounds += [f"above {above}"] if above is not None else []
        bounds += [f"below {below}"] if below is not None else []
        bounds += [f"at most {high}"] if high is not None else []
        raise ValueError(f"{name} must be a number {' and '.join(bounds)}".rstrip() + f", got {value!r}")
    return number


def _number(value):
    """A float; a TypeError for a text or a bool, for what those would become is not what was meant."""
    if type(value).__name__ in ("bool", "bool_", "str", "str_", "bytes", "bytes_"):
        raise TypeError(value)
    return float(value)


def is_about_arguments(error: Exception) -> bool:
    """Whether an error that making a model raises is about its arguments: some do not fit, or ask for more
    memory than there is."""
    # TensorFlow's own, by its name: it need not be installed.
    too_large = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return too_large or isinstance(error, (TypeError, ValueError, OverflowError))


def require_kernel_size(name: str, value: Iterable[int]) -> tuple[int, int]:
    """`value` as the sides `(kh, kw)` of a causal kernel, ints of at least 1, `kw` odd.

    Raises:
        ValueError: it is something else.

    Example:
        >>> require_kernel_size("kernel_size", [3, 5])
        (3, 5)
    """
    try:
        height, width = (require_int(name, side, low=1) for side in value)
        accepted = width % 2 == 1
    except (TypeError, ValueError):
        accepted = False
    if not accepted:
        raise ValueError(f"{name} must be (kh, kw), integers of at least 1 and kw odd, got {value!r}")
    return height, width


def check_per_level(name: str, value: Any, count: int, low: float, high: float) -> list[float]:
    """Returns one float per network from one value or a list of `count`, each in `low..high`.

    Raises:
        ValueError: another number of values, or one outside the range.
    """
    given = value.tolist() if hasattr(value, "tolist") else value
    listed = list(given) if isinstance(given, (list, tuple)) or len(getattr(given, "shape", ())) else [given]
    try:
        values = [_number(v) for v in listed]
    except (TypeError, ValueError, OverflowError):
        values = []
    if len(values) not in (1, count):
        raise ValueError(
            f"{name} must be one number or {count} (one per level, finest first, then the prior), "
            f"got {value!r}"
        )
    if not all(low <= v <= high for v in values):
        raise ValueError(f"{name} must lie in {low}..{high}, got {value!r}")
    return values if len(values) == count else values * count


def check_sampling(values: dict[str, Any] | None, networks: int, guided: bool) -> dict[str, Any]:
    """How a model is sampled, complete: a dict of `temperature` and `top_p`, lists of one float per network,
    and `guidance`, a float; what `values` lacks is 1.

    Args:
        values: a dict of those keys, or `None`.
        networks: how many there are, the prior among them.
        guided: whether a network that draws codes knows what "no label" is.

    Raises:
        ValueError: unknown keys, another number of values, values out of range, guidance where there is none.
    """
    if not isinstance(values or {}, dict) or not set(values or {}) <= set(SAMPLING):
        raise ValueError(f"sampling must be a dict with keys among {', '.join(SAMPLING)}, got {values!r}")
    values = dict.fromkeys(SAMPLING, 1.0) | (values or {})
    checked = {}
    for name, (low, high) in SAMPLING.items():
        count = 1 if name == "guidance" else networks
        checked[name] = check_per_level(name, values[name], count, low, high)
    checked["guidance"] = checked["guidance"][0]
    if checked["guidance"] != 1.0 and not guided:
        raise ValueError(
            "guidance must be 1 for this model, whose networks did not learn codes with labels left out "
            f"(label_dropout in its configuration), got {values['guidance']!r}"
        )
    return checked
