"""Seeded damage: bytes and JSON values that are nearly right."""

import contextlib
import copy
import json
import os

# What stands where something else belongs.
ODD = [
    None,
    True,
    False,
    0,
    1,
    2,
    3,
    7,
    -1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e-300,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "a",
    "1",
    "\x00",
    "caf\udce9",
    "\N{SNOWMAN}" * 300,
    [],
    [[]],
    [0],
    [1, "a", None],
    {},
    {"a": 1},
    [[[[[[[[1]]]]]]]],
]


class RefusedError(Exception):
    """A clear error in another dialect than that of haim_tf's own ValueErrors."""


@contextlib.contextmanager
def leaves_alone(folder, besides=()):
    """An AssertionError where an error inside leaves new names in a folder, others than `besides`."""
    before = {*os.listdir(folder), *besides}
    try:
        yield
    except Exception as error:
        if left := set(os.listdir(folder)) - before:
            raise AssertionError(f"left behind: {sorted(left)}") from error
        raise


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def damaged_bytes(rng, content):
    """Bytes cut off, with some changed, put in, taken out, doubled or set to extremes; now and then as they
    were, or others altogether."""
    content = bytearray(content)
    for _ in range(int(rng.integers(0, 4))):
        kind = int(rng.integers(8))
        place = int(rng.integers(len(content) + 1))
        # Headers are short, and where most goes wrong.
        if rng.random() < 0.5:
            place = min(place, int(rng.integers(64)))
        length = int(rng.integers(1, 9))
        here = slice(place, place + length)
        if kind == 0:
            del content[place:]
        elif kind == 1:
            content[here] = rng.bytes(len(content[here]))
        elif kind == 2:
            content[place:place] = rng.bytes(length)
        elif kind == 3:
            del content[here]
        elif kind == 4:
            content[place:place] = content[place : place + 10 * length]
        elif kind == 5:
            content[here] = bytes([pick(rng, [0, 255, 127, 128])]) * len(content[here])
        elif kind == 6 and content:
            content[place % len(content)] ^= 1 << int(rng.integers(8))
        elif kind == 7 and rng.random() < 0.1:
            content = bytearray(rng.bytes(int(rng.integers(200))))
    return bytes(content)


def places(value, path=()):
    """The paths to every value inside nested dicts and lists, its own `()` among them."""
    found = [path]
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += places(value[key], (*path, key))
    return found


def damaged_value(rng, value, times=2):
    """Nested dicts and lists with values, at most so many, replaced by odd ones, removed or added."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, times + 1))):
        path = pick(rng, places(value))
        odd = copy.deepcopy(pick(rng, ODD))
        if not path:
            if rng.random() < 0.1:
                return odd
            continue
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        key, kind = path[-1], rng.random()
        if kind < 0.15:
            del inner[key]
        elif kind < 0.25 and isinstance(inner, dict):
            inner[pick(rng, ["kind", "name", "other", "", "heads", "ema"])] = odd
        elif kind < 0.35 and isinstance(inner[key], list):
            inner[key] = inner[key] * 3
        elif kind < 0.45 and type(inner[key]) in (int, float):
            inner[key] = type(inner[key])(inner[key] * pick(rng, [-1, 0, 2, 3])) + pick(rng, [-1, 0, 1])
        else:
            inner[key] = odd
    return value


def damaged_json(rng, value):
    """JSON text, bytes, of a damaged value, or the damaged text of the value itself."""
    if rng.random() < 0.3:
        return damaged_bytes(rng, json.dumps(value).encode())
    return json.dumps(damaged_value(rng, value)).encode()
