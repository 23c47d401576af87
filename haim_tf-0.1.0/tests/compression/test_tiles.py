"""Tiles of images, and tiles in batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haim_tf.compression import tiles


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (1, 1), (9, 7), (5, 13)])
def test_split_and_join(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
    parts = tiles.split(image, (4, 6, 3))
    assert parts.shape == (tiles.count(*size, (4, 6, 3)), 4, 6, 3)
    np.testing.assert_array_equal(tiles.join(parts, *size), image)
    np.testing.assert_array_equal(parts[0, : size[0], : size[1]], image[:4, :6])


def test_remainders_repeat_the_edge():
    parts = tiles.split(np.arange(6, dtype="uint8").reshape(2, 3, 1), (2, 2, 1))
    assert parts[..., 0].tolist() == [[[0, 1], [3, 4]], [[2, 2], [5, 5]]]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.sampled_from([1, 2, 8]), st.randoms())
def test_plans(counts, size, random):
    slots = tiles.choose_slots(counts, size)
    order = list(range(len(counts)))
    random.shuffle(order)
    placed = {}
    for files in (list(range(len(counts))), order[: len(order) // 2 + 1]):
        batches = tiles.plan([counts[i] for i in files], [slots[i] for i in files], size)
        seen = {i: [] for i in files}
        for batch in batches:
            used = [slot for _, _, place in batch for slot in range(place.start, place.stop)]
            assert len(set(used)) == len(used) and set(used) <= set(range(size))
            for file, part, place in batch:
                seen[files[file]].append((part.start, part.stop, place.start, place.stop))
        for i in files:
            # In order, complete, and the same whatever other files there are.
            assert [p[:2] for p in seen[i]] == [
                (s, min(s + size, counts[i])) for s in range(0, counts[i], size)
            ]
            assert placed.setdefault(i, seen[i]) == seen[i]
