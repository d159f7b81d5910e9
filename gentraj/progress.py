"""What a long work tells people while it runs, on stderr: stdout is for results."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

SHOW_AFTER = 2.0  # seconds: what is done sooner needs no bar
REDRAW_EVERY = 0.5  # seconds, on a terminal
LINE_EVERY = 30.0  # seconds between two lines where the output is a file
COUNTED = "{desc}: {n_fmt}/{total_fmt}{unit}, {elapsed} elapsed, {remaining} left{postfix}"


def say(text: str) -> None:
    """Progress for people goes to stderr; stdout is for results. Bars on a terminal make way for it."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def bar(total: int, description: str, unit: str = "steps", *, initial: int = 0, shown: bool = True) -> tqdm:
    """A progress bar, as a context manager, whose `update(n)` counts; `description` says who does what.

    On a terminal it is drawn once the work has taken two seconds. Elsewhere, in a log file or a batch job, it is a
    line every 30 seconds.
    """
    return _bar(total=total, desc=description, unit=f" {unit}", initial=initial, disable=not shown,
                leave=None)  # one inside another leaves nothing behind


@contextmanager
def busy(description: str) -> Iterator[None]:
    """For work whose steps cannot be counted, such as one call of a library: shows how long it has taken so far."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(max(shown.mininterval, shown.delay)):
            shown.refresh()

    with _bar(total=None, desc=description, bar_format="{desc}: {elapsed} so far", leave=False) as shown:
        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            done.set()
            ticking.join()


def _bar(**settings: Any) -> tqdm:
    settings |= {"file": sys.stderr, "delay": SHOW_AFTER, "miniters": 0}  # `update(0)` shows the time that has passed
    if sys.stderr.isatty():
        return tqdm(**settings, mininterval=REDRAW_EVERY)
    settings.setdefault("bar_format", COUNTED)
    return _Lines(**settings, mininterval=LINE_EVERY)


class _Lines(tqdm):
    """A bar without a terminal: each time it would be redrawn it is a line, and nothing is drawn at its end."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # the empty message of its end clears what was drawn
            say(str(self))

    def close(self) -> None:
        self.leave = False
        super().close()
