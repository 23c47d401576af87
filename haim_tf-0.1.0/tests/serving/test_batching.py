"""Batches of what comes at the same time; no Ray runs here."""

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
from serving.batching import Batcher, batch_length


def test_batches_are_nearly_full_or_of_a_smaller_size():
    assert [batch_length(n, [1, 8, 32]) for n in (1, 5, 6, 8, 20, 24, 99)] == [1, 1, 6, 8, 8, 24, 32]
    assert [batch_length(n, [8]) for n in (1, 8, 9)] == [1, 8, 8]


def test_examples_gather_while_a_batch_runs():
    batches, go = [], threading.Event()

    def run(examples):
        batches.append(examples)
        go.wait(10)
        if "bad" in examples:
            raise ValueError("a bad one")
        return [x * 2 for x in examples]

    async def ask():
        batcher = Batcher(run, [1, 4], 0.01, ThreadPoolExecutor(1))
        first = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.1)
        rest = [asyncio.create_task(batcher(i)) for i in range(2, 9)]
        await asyncio.sleep(0.1)
        rest[0].cancel()
        go.set()
        assert await first == 2
        assert await asyncio.gather(*rest[1:]) == [6, 8, 10, 12, 14, 16]
        with pytest.raises(ValueError, match="a bad one"):
            await batcher("bad")
        assert await batcher(5) == 10  # It goes on.

    asyncio.run(ask())
    assert batches == [[1], [3, 4, 5, 6], [7], [8], ["bad"], [5]]


def test_batches_run_side_by_side_and_share_what_waits():
    batches, both = [], threading.Barrier(2, timeout=10)

    def run(examples):
        batches.append(examples)
        both.wait()  # Nobody gets past it alone.
        return examples

    async def ask():
        batcher = Batcher(run, [1, 2, 4], 0.01, ThreadPoolExecutor(2), parallel=2)
        for _ in range(3):
            assert await asyncio.gather(*(batcher(i) for i in range(4))) == [0, 1, 2, 3]

    asyncio.run(ask())
    assert sorted(batches) == [[0, 1]] * 3 + [[2, 3]] * 3
