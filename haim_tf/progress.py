"""Progress on standard error: a bar on a terminal, elsewhere a plain line now and then."""

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator

# Seconds between two lines where there is no terminal: what is done sooner says nothing.
LINE_SECONDS = 10.0
# Seconds after which something slow is told of.
SLOW_SECONDS = 2.0

_open_bars = weakref.WeakSet()


class Bar:
    """How much of some work is done.

    On a terminal a bar of tqdm's, which vanishes when all is done or the bar is closed; elsewhere no control
    codes, but a line each ten seconds. Standard output is left alone.

    Args:
        total: how many units there are; `None`: nobody knows.
        unit: what is counted, in the plural.
        show: whether to show anything.

    Example:
        >>> with Bar(3, "batches") as bar:
        ...     bar.add(3)
    """

    def __init__(self, total: int | None, unit: str, show: bool = True):
        self.total = None if total is None else int(total)
        self.unit, self.done, self._bar = unit, 0, None
        self._show, self._said = show, time.monotonic()
        if show and is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, unit=f" {unit}", leave=False, ncols=_columns(), nrows=20, file=sys.stderr
            )
            _open_bars.add(self)

    def add(self, count: int, **figures: float) -> None:
        """`count` units more are done; `figures` stand beside them."""
        self.done += count
        if self._bar is not None:
            if figures:
                self._bar.set_postfix({k: f"{v:.4g}" for k, v in figures.items()}, refresh=False)
            self._bar.update(count)
            if self.total is not None and self.done >= self.total:
                self.close()
        elif self._show and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            text = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
            of_all = "" if self.total is None else f"/{self.total}"
            _print(f"{self.done}{of_all} {self.unit}{text}")

    def close(self) -> None:
        """Takes the bar off the terminal; more than once is as good."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        _open_bars.discard(self)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error) -> None:
        self.close()


@contextlib.contextmanager
def said_if_slow(text: str) -> Iterator[None]:
    """Says a line on standard error if what is done inside takes more than two seconds.

    Example:
        >>> with said_if_slow("compiling the sampler"):
        ...     pass
    """
    timer = threading.Timer(SLOW_SECONDS, tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell(text: str) -> None:
    """A plain line on standard error, of work that is under way; above the bars, where there are some."""
    if any(bar._bar is not None for bar in list(_open_bars)):
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        _print(text)


def _print(text):
    """A line on standard error; work goes on where whoever read that has gone, or its disk is full."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def close_all() -> None:
    """Takes what bars there are off the terminal, before an error is told, say."""
    for bar in list(_open_bars):
        bar.close()


def is_terminal() -> bool:
    """Whether standard error is a terminal, where bars may move."""
    return bool(getattr(sys.stderr, "isatty", bool)())


def _columns():
    try:
        # Terminals that do not know how wide they are say 0.
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
