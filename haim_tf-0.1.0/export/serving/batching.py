"""Examples of requests that come at the same time, in shared batches."""

import asyncio
import bisect

FULL = 0.75  # Of a batch, from which filling it up costs less than running a smaller one twice.


def batch_length(waiting, sizes):
    """How many of the waiting examples the next batch takes, given the sizes that batches are filled up to.

    Example:
        >>> [batch_length(n, [1, 8, 32]) for n in (1, 5, 6, 20, 24, 99)]
        [1, 1, 6, 8, 24, 32]
    """
    i = bisect.bisect_left(sizes, waiting)
    if i == len(sizes):
        return sizes[-1]
    return waiting if i == 0 or waiting >= FULL * sizes[i] else sizes[i - 1]


class Batcher:
    """Awaited with one example, gives its result; examples that wait meanwhile run together.

    NOTE: not `ray.serve.batch` (2.60), which closes a batch when its time is up although the one before it
    still runs: under load nearly all batches then hold one example. Here they gather for as long as one runs.

    Args:
        run: a function of a list of examples, called in `executor`, that gives their results in order.
        sizes: ints in rising order, see `batch_length`.
        wait_seconds: for which a batch that is not full waits for more before it runs.
        executor: with at least `parallel` threads.
        parallel: how many batches run side by side; those that begin together share what waits.
    """

    def __init__(self, run, sizes, wait_seconds, executor, parallel=1):
        self._run, self._sizes, self._wait_seconds, self._executor = run, sizes, wait_seconds, executor
        self._waiting, self._workers, self._free, self._gathering = [], set(), parallel, 0

    async def __call__(self, example):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((example, future))
        if self._free:
            self._free -= 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)  # Tasks that nothing holds may be collected.
            worker.add_done_callback(self._workers.discard)
        return await future

    async def _work(self):
        while self._waiting:
            self._gathering += 1
            # Without a wait still a turn of the loop, for those that begin now too.
            await asyncio.sleep(self._wait_seconds if len(self._waiting) < self._sizes[-1] else 0)
            # Those whose request has been given up take no place.
            waiting = [pair for pair in self._waiting if not pair[1].done()]
            share = -(-len(waiting) // self._gathering)
            self._gathering -= 1
            length = batch_length(share, self._sizes)
            batch, self._waiting = waiting[:length], waiting[length:]
            if batch:
                await self._answer(*zip(*batch, strict=True))
        self._free += 1

    async def _answer(self, examples, futures):
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._run, list(examples))
        except Exception as error:
            results = [error] * len(futures)
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
