"""Checks of what people hand over."""

import numpy as np
import pytest

from haim_tf.checks import check_per_level, check_sampling


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
        ({"top_p": 0}, "top_p must lie in"),
        ({"guidance": 2}, "guidance must be 1 for this model"),
    ],
)
def test_bad_sampling(values, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(values, 2, False)
