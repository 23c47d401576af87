"""Checks of what people hand over: a wrong value is a ValueError, "... must be ..., got ..."."""

import operator


def require_int(name, value, low=None, high=None):
    """`value` as an int in `low..high`, whatever integer type it is of (NumPy's, a 0-d array of them).

    Args:
        name: what the message calls it.
        value: to be checked; a bool is no integer.
        low, high: bounds, both included; `None`: none.

    Raises:
        ValueError: it is no integer, or out of bounds.

    Example:
        >>> require_int("num", np.int64(3), low=1)
        3
    """
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
        raise ValueError(f"{name} must be an integer{bounds}, got {value!r}")
    return number


def require_positive_integers(**values):
    """A ValueError that names the first argument that is not an integer of at least 1.

    Example:
        >>> require_positive_integers(width=64, blocks=2)
    """
    for name, value in values.items():
        require_int(name, value, low=1)
