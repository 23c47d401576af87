"""A few hundred of the inputs of `make fuzz`; and that what fuzzing looks for would be found."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import fuzz
from damage import damaged_bytes, damaged_json
from surfaces import find

from haim_tf.checks import require_int

SHORT = {
    "pictures": 150,
    "arrays": 80,
    "data folders": 20,
    "recipes": 80,
    "run folders": 40,
    "presets": 3,
    "request bodies": 60,
}


@pytest.mark.parametrize("name", SHORT)
def test_all_is_accepted_or_refused_clearly(tmp_path, name):
    surface = find(name)(tmp_path)
    outcomes = []
    for index in range(SHORT[name]):
        became, text = fuzz.outcome(surface, fuzz.generator(1, name, index))
        assert became != "fault", f"input {index} of seed 1: {text}"
        outcomes.append(became)
    assert "refused" in outcomes and (len(outcomes) < 10 or "accepted" in outcomes)


class Toy:
    """Breaks in every way that is looked for."""

    LIMIT = 5

    def __init__(self, folder):
        pass

    def attempt(self, rng):
        way = int(rng.integers(6))
        if way == 0:
            os._exit(3)
        if way == 1:
            time.sleep(30)
        if way == 2:
            raise KeyError("nobody's fault")
        if way == 3:
            int("not haim_tf's own ValueError")
        if way == 4:
            require_int("number", "a")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_ends_hangs_and_foreign_errors_are_faults():
    ways = [int(fuzz.generator(29, "toy", i).integers(6)) for i in range(7)]
    assert set(ways) == set(range(6))
    counts, faults = fuzz.try_surface("toy", 29, len(ways), Toy)
    assert counts == {
        "fault": sum(way < 4 for way in ways),
        "refused": ways.count(4),
        "accepted": ways.count(5),
    }
    said = ["exit code 3", "no answer within 5 seconds", "KeyError", "invalid literal for int"]
    for index, text in faults:
        assert said[ways[index]] in text


def test_damage_is_seeded_and_damages():
    for damage, value in ((damaged_bytes, bytes(100)), (damaged_json, {"a": [1, {"b": "c"}]})):
        found = [[damage(np.random.default_rng(i), value) for i in range(50)] for _ in range(2)]
        assert found[0] == found[1] and len(set(found[0])) > 25
