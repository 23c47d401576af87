"""Damaged and odd inputs, seeded, to all that parses; a table of what became of them.

    python tests/fuzz/fuzz.py                        # make fuzz: all of them, a few minutes
    python tests/fuzz/fuzz.py --surfaces=pictures,recipes --share=0.1 --seed=1

An input is accepted, or refused with the one line that users get (see `haim_tf.cli.main`). Everything else is
a fault: another error, the end of the process, no answer in time, a file left beside a run or preset that is
refused. Each surface runs in a process of its own, which is started anew where it ended or did not answer;
input i of a surface is determined by the seed and i.
"""

import argparse
import collections
import contextlib
import io
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
from damage import RefusedError
from surfaces import SURFACES, find

# Faults of a surface that are shown, one of those that end alike.
SHOWN = 20
START_SECONDS = 1200


def outcome(surface, rng):
    """`("accepted", "")`, `("refused", message)` or `("fault", traceback)` of one attempt."""
    from haim_tf.cli.main import bad_input

    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            surface.attempt(rng)
    except Exception as error:
        message = str(error) if isinstance(error, RefusedError) else bad_input(error, "fuzz")
        if message and message.strip():
            return "refused", message
        return "fault", "".join(traceback.format_exception(error))
    return "accepted", ""


def generator(seed, name, index):
    """The random numbers of input `index` of a surface."""
    import numpy as np

    return np.random.default_rng((seed, zlib.crc32(name.encode()), index))


def _work(kind, name, seed, indices, connection):
    """A child's part: how long an input may take, then the outcome of each, sent as soon as it is known."""
    kind = find(name) if kind is None else kind
    with tempfile.TemporaryDirectory() as folder:
        surface = kind(Path(folder))
        connection.send(kind.LIMIT)
        try:
            for index in indices:
                connection.send((index, *outcome(surface, generator(seed, name, index))))
        finally:
            getattr(surface, "close", lambda: None)()


def try_surface(name, seed, count, kind=None):
    """Tries `count` inputs on the surface of that name, or class; a Counter of outcomes and a list of faults,
    `(index, text)`."""
    counts, faults, next_index = collections.Counter(), [], 0
    while next_index < count:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        arguments = (kind, name, seed, range(next_index, count), theirs)
        child = multiprocessing.Process(target=_work, args=arguments)
        child.start()
        theirs.close()
        limit = None
        while next_index < count:
            try:
                said = (
                    ours.recv() if ours.poll(limit or START_SECONDS) else f"no answer within {limit} seconds"
                )
            except EOFError:
                child.join()
                said = f"the process ended with exit code {child.exitcode}"
            if limit is None:
                if isinstance(said, str):
                    child.kill()
                    raise RuntimeError(f"{name} cannot be tried: {said}")
                limit = said
                continue
            _, became, text = (next_index, "fault", said) if isinstance(said, str) else said
            counts[became] += 1
            if became == "fault":
                faults.append((next_index, text))
            next_index += 1
            if isinstance(said, str):
                child.kill()
                break
        child.join()
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surfaces", help="names, with commas between them; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of each surface's inputs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = arguments.surfaces.split(",") if arguments.surfaces else list(SURFACES)
    if unknown := set(names) - set(SURFACES):
        parser.error(f"the surfaces are {', '.join(SURFACES)}, got {', '.join(sorted(unknown))}")
    rows = []
    for name in names:
        count = max(1, round(SURFACES[name][1] * arguments.share))
        began = time.monotonic()
        try:
            counts, faults = try_surface(name, arguments.seed, count)
        except RuntimeError as error:  # The others' counts are not lost.
            counts, faults = collections.Counter(fault=1), [(0, str(error))]
        rows.append([name, sum(counts.values()), *(counts[k] for k in ("accepted", "refused", "fault"))])
        print(f"{name}: {time.monotonic() - began:.0f} s, {len(faults)} faults", file=sys.stderr, flush=True)
        alike = {text[-200:]: (index, text) for index, text in reversed(faults)}
        for index, text in list(alike.values())[:SHOWN]:
            print(f"--- {name}, input {index}\n{text}", file=sys.stderr, flush=True)
    rows.append(["all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])])
    print("| surface | inputs | accepted | refused with a clear error | faults |\n|---|---|---|---|---|")
    for name, *numbers in rows:
        print(f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return 1 if rows[-1][-1] else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.exit(main())
