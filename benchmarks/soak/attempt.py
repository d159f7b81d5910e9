"""What may come out of a file that is damaged or hostile: its content, or one line of gentraj's own."""

from __future__ import annotations

import linecache
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import minari  # noqa: F401 (once, and not in each fork)
import numpy as np

from gentraj.cli import _code
from gentraj.data import DataError
from gentraj.data.reader import READERS, _bound_memory

ROOT = Path(__file__).parents[2]
OWN = tuple(str(ROOT / room) + "/" for room in ("gentraj", "agents", "envs"))
SECONDS = 60.0
MEMORY = 1 << 31  # bytes that a fork may take beside what this process has


class Hang(BaseException):
    """Reading takes too long. Not an `Exception`, so that nothing takes it for an error of the file."""


def attempt(read: Callable[[], Any], what: str) -> tuple[Any, str]:
    """Calls `read` and returns what it returns, or None and the line of its refusal.

    Raises AssertionError, which says `what` was read, for any error that is no refusal, and if it takes too long.
    """
    try:
        with time_limit(SECONDS):
            return read(), ""
    except Exception as error:
        assert is_refusal(error), f"{what}: {describe(error)}"
        return None, str(error)
    except Hang:
        raise AssertionError(f"{what}: nothing came out within {SECONDS:.0f} s") from None


def is_refusal(error: Exception) -> bool:
    """Whether the command would show the error as bad input in one line, and it is raised by gentraj's own check."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raised = linecache.getline(frame.filename, frame.lineno or 0).strip().startswith("raise")
    return raised and frame.filename.startswith(OWN) and _code(error) is not None


def describe(error: Exception) -> str:
    """The error with the last lines of code that it came through."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:500]}; at {places}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Hang` in the block after so many seconds."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def apart(read: Callable[[], Any], what: str) -> tuple[Any, str]:
    """`attempt` in a fork of this process, in which HDF5 files are read without a further process.

    A crash of libhdf5 is a refusal, as it is for `gentraj.data.apart`. What `read` returns must be small.
    """
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(read, what, sender))
    child.start()
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(2 * SECONDS) else "nothing came out of the process"
    except EOFError:
        answer = None, f"crashed: exit {child.join() or child.exitcode}"
    child.kill()
    child.join()
    receiver.close()
    assert not isinstance(answer, str), f"{what}: {answer}"
    return answer


def _answer(read: Callable[[], Any], what: str, sender: Any) -> None:
    _bound_memory(MEMORY)
    with patch("gentraj.data.d4rl.read_apart", _read_here), patch("gentraj.data.minari_io.read_apart", _read_here):
        try:
            sender.send(attempt(read, what))
        except AssertionError as error:
            sender.send(str(error))


def _read_here(reader: str, path: Path, **arguments: Any) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """`gentraj.data.apart.read_apart` in this process, whose memory is bounded."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return READERS[reader](path, **arguments)
    except (DataError, ImportError):
        raise
    except Exception as error:
        raise DataError(f"{path}: reading it crashed") from error
