"""Checks of arguments: what passes, as which type, and the one dialect of errors."""

import numpy as np
import pytest

from haim_tf.checks import (
    check_per_level,
    check_sampling,
    require_int,
    require_kernel_size,
    require_number,
    require_positive_integers,
)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_integers_of_all_types_become_python_ints(value):
    assert type(require_int("num", value, low=1, high=3)) is int
    assert require_positive_integers(a=value, b=1) == (3, 1)
    assert require_kernel_size("kernel_size", [value, value]) == (3, 3)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (2.0, {}, "num must be an integer, got 2.0"),
        (True, {}, "num must be an integer, got True"),
        (np.bool_(True), {}, "num must be an integer, got "),
        ("2", {}, "num must be an integer, got '2'"),
        (None, {"low": 0}, "num must be an integer of at least 0, got None"),
        (0, {"low": 1}, "num must be an integer of at least 1, got 0"),
        (4, {"low": 1, "high": 3}, "num must be an integer in 1..3, got 4"),
        (0, {"low": 1, "optional": True}, "num must be an integer of at least 1 or None, got 0"),
        (np.array([1, 2]), {}, "num must be an integer, got array"),
    ],
)
def test_what_is_no_such_integer(value, bounds, message):
    with pytest.raises(ValueError) as caught:
        require_int("num", value, **bounds)
    assert str(caught.value).startswith(message)


def test_an_optional_integer_may_be_none():
    assert require_int("num", None, low=1, optional=True) is None


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5)])
def test_numbers_of_all_types_become_python_floats(value):
    assert type(require_number("decay", value, low=0, below=1)) is float
    assert require_number("decay", np.int64(0), low=0, below=1) == 0.0


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        ("0.5", {}, "decay must be a number, got '0.5'"),
        (False, {}, "decay must be a number, got False"),
        (None, {"low": 0}, "decay must be a number of at least 0, got None"),
        (float("nan"), {}, "decay must be a number, got nan"),
        (1, {"low": 0, "below": 1}, "decay must be a number of at least 0 and below 1, got 1"),
        (0.0, {"above": 0}, "decay must be a number above 0, got 0.0"),
        ([0.5, 0.5], {}, "decay must be a number, got [0.5, 0.5]"),
        (float("inf"), {"above": 0}, "decay must be a number above 0, got inf"),
    ],
)
def test_what_is_no_such_number(value, bounds, message):
    with pytest.raises(ValueError) as caught:
        require_number("decay", value, **bounds)
    assert str(caught.value) == message


def test_per_level_values():
    assert check_per_level("temperature", 0.5, 3, 0, 100) == [0.5] * 3
    assert check_per_level("temperature", [0, 0.5, 2], 3, 0, 100) == [0, 0.5, 2]
    assert check_per_level("top_p", np.float64(1), 2, 0, 1) == [1, 1]


def test_sampling_is_completed():
    assert check_sampling(None, 2, False) == {"temperature": [1, 1], "top_p": [1, 1], "guidance": 1}
    given = {"temperature": 0.5, "guidance": 2}
    assert check_sampling(given, 2, True) == {"temperature": [0.5, 0.5], "top_p": [1, 1], "guidance": 2}


@pytest.mark.parametrize(
    "values,message",
    [
        ({"top_k": 3}, "a dict with keys among temperature, top_p, guidance"),
        ({"temperature": [1, 1, 1]}, "temperature must be one number or 2"),
        ({"temperature": "0.9"}, "temperature must be one number or 2"),
        ({"top_p": ["1", "0.5"]}, "top_p must be one number or 2"),
        ({"guidance": True}, "guidance must be one number"),
        ({"temperature": {0.5, 1.0}}, "temperature must be one number or 2"),
        ({"top_p": {0.5: 1}}, "top_p must be one number or 2"),
        ({"top_p": 0}, "top_p must lie in"),
        ({"guidance": 2}, "guidance must be 1 for this model"),
    ],
)
def test_bad_sampling(values, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(values, 2, False)
