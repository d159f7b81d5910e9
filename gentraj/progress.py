"""Messages and progress bars for people, on stderr; stdout is for results."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from tqdm import tqdm

SHOW_AFTER = 2.0  # seconds: shorter work needs no bar
REDRAW_EVERY = 0.5  # seconds, on a terminal
LINE_EVERY = 30.0  # seconds between lines where stderr is no terminal
COUNTED = "{desc}: {n_fmt}/{total_fmt}{unit}, {elapsed} elapsed, {remaining} left{postfix}"


def say(text: str) -> None:
    """Prints a message on stderr, above the progress bars of a terminal; a message that cannot be written is lost."""
    with suppress(OSError):  # a full disk
        if sys.stderr.isatty():
            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


say_once = cache(say)  # the same message is printed once in a process


def counted(number: int, things: str) -> str:
    """A number of things, such as "1 episode" of 1 "episodes"."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def one_line(error: BaseException) -> str:
    """The message of an error on one line, or the name of its class if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def print_saved(text: object) -> None:
    """Prints on stdout results that are in files too: where stdout cannot be written, it only warns.

    Raises BrokenPipeError if the reader has left.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # Python would complain of what stdout still holds again when it exits
        os.close(null)
        warnings.warn(f"stdout: cannot be written ({error.strerror}); the results are in files too",
                      stacklevel=2)


def bar(total: int, description: str, unit: str = "steps", *, initial: int = 0, shown: bool = True) -> tqdm:
    """A tqdm progress bar of `total` units, to be used as a context manager; `update(n)` counts n of them.

    `description` says who does what. A terminal shows the bar once the work has taken two seconds. A log file or a
    batch job gets a line every 30 seconds instead.
    """
    # miniters 0, so that `update(0)` redraws the elapsed time. smoothing 0, so that the time left follows from the mean
    # over all units: tqdm's smoothed rate takes a unit that ends to have begun at the last redraw. leave None: a bar
    # inside another one is cleared at its end.
    settings = {"total": total, "desc": description, "unit": f" {unit}", "initial": initial, "disable": not shown,
                "file": sys.stderr, "delay": SHOW_AFTER, "miniters": 0, "smoothing": 0, "leave": None}
    if sys.stderr.isatty():
        return tqdm(**settings, mininterval=REDRAW_EVERY)
    return _Lines(**settings, bar_format=COUNTED, mininterval=LINE_EVERY)


@contextmanager
def busy(description: str) -> Iterator[None]:
    """Says that the `with` block runs, once it has taken two seconds, for work whose steps cannot be counted."""
    timer = threading.Timer(SHOW_AFTER, say, [f"{description} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Lines(tqdm):
    """A bar for output that is no terminal: it prints lines instead of redrawing itself, and nothing at its end."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # tqdm passes an empty message to clear the bar at its end
            say(str(self))

    def close(self) -> None:
        self.leave = False
        super().close()
