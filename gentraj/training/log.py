"""The log of a training: `metrics.jsonl`, a progress bar and loggers. A failing log never stops the training."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from ..files import FileRefused, open_plain, read_file
from ..progress import bar, one_line
from .loggers import LOGGERS, Logger

FILE = "metrics.jsonl"
BEYOND = 1e300  # no metric is so large, and sums of fewer than 10^8 smaller ones are finite
LARGEST = 1 << 30  # bytes; a row of 30 metrics takes one kilobyte
CHECK = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\s*\Z')
Row = dict[str, Any]
Sums = dict[str, list[float]]
"""For each metric, its sum since the last row and the number of steps in that sum."""


@dataclass(frozen=True)
class SavedSums:
    """The sums of a checkpoint, to be read with `from_json`. Raises ValueError for a number of steps below 1."""

    sums: dict[str, tuple[float, int]]

    def __post_init__(self) -> None:
        for name, (_, steps) in self.sums.items():
            if steps < 1:
                raise ValueError(f"the sum of {name} is over {steps} steps; at least 1 is expected")


class LogWarning(UserWarning):
    """A part of the log could not be written."""


def read_metrics(folder: Path) -> list[Row]:
    """Reads the rows of a run's metrics.jsonl, one dict every `log_every` steps.

    A row holds "step", the mean of each "{component}/{metric}" since the row before, and the "seconds" since then.
    Means are over the steps that reported the metric; a row lacks metrics that no step reported. The current learning
    rate is "{component}/lr", or "{component}/lr-{optimizer}" where a component has several optimisers. Whatever is no
    number in the file is left out.
    """
    return [{key: value for key, value in row.items() if isinstance(value, int | float) and abs(value) < BEYOND}
            for row in read_rows(folder / FILE)]


def read_rows(path: Path) -> list[Row]:
    """Reads a file with one JSON object a line, each with a "step" from 0 on; a missing file has no rows.

    Lines that are damaged are left out with a `LogWarning`. An incomplete last line, as a crash leaves it, is left out.
    """
    try:
        lines = list(BytesIO(read_file(path, LARGEST)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    rows = [row for line in lines if (row := _row(line))]
    if damaged := sum(line.endswith(b"\n") or b"}" in line for line in lines) - len(rows):  # a row ends in its only }
        warnings.warn(f"{path}: {damaged} of {len(lines)} lines are damaged and are left out", LogWarning, stacklevel=2)
    return rows


def line_of(row: Row) -> bytes:
    """The line that `read_rows` reads back as this row. It ends in a checksum of the row."""
    text = json.dumps(row)[:-1].encode()
    return text + f', "crc32": "{zlib.crc32(text):08x}"}}\n'.encode()


class Log:
    """Collects the metrics of each step and writes a row every `every` steps, and after the last of `steps` steps.

    `start` and `sums` continue an interrupted run. Rows after step `start` are removed: they will be written again.
    The loggers `log_to` are given the rows too, and the `settings` of the run. Unless `written`, only the sums and the
    last row are kept, and nothing is written or shown.
    """

    def __init__(self, folder: Path, every: int, steps: int, *, start: int = 0, sums: Sums | None = None,
                 progress: bool = True, log_to: Sequence[str] = (), settings: Mapping[str, Any] | None = None,
                 on_row: Callable[[Row], None] | None = None, written: bool = True):
        self.every, self.steps, self.on_row = every, steps, on_row if written else None
        self.sums: Sums = dict(sums or {})  # saved with each checkpoint, so that means lose no steps on resume
        self.last: Row = {}
        self._warned: set[str] = set()
        self._torn, self._file, self._path = False, None, folder / FILE
        self._loggers: dict[str, Logger] = {}
        if written:
            with self._harmless(str(self._path)):
                descriptor = open_plain(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
                self._file = open(descriptor, "ab", buffering=0)  # noqa: SIM115 (closed in __exit__)
                os.truncate(self._file.fileno(), _end_of_row(read_file(self._path, LARGEST), start) if start else 0)
        for name in log_to if written else ():
            with self._harmless(name, Exception):
                self._loggers[name] = LOGGERS[name](folder, start, settings or {})
        self._bar = bar(steps, "training", initial=start, shown=progress and written)
        self._since = time.monotonic()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        for close in (self._bar.close, self._file and self._file.close):
            if close:
                with self._harmless("the log"):
                    close()
        for name, logger in self._loggers.items():
            with self._harmless(name, Exception):
                logger.close()

    def record(self, step: int, metrics: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Adds the metrics and the learning rates of a step, after which `step` steps are done."""
        for key, value in metrics.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = [total + value, count + 1]
        with self._harmless("the progress bar"):
            self._bar.set_postfix_str(" ".join(f"{k} {v:.3g}" for k, v in list(metrics.items())[:1]), refresh=False)
            self._bar.update()
        if step % self.every == 0 or step == self.steps:
            self._emit(step, rates)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the `with` block from the seconds of training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._since += time.monotonic() - began

    def _emit(self, step: int, rates: Mapping[str, float]) -> None:
        now, means = time.monotonic(), {key: total / count for key, (total, count) in self.sums.items()}
        row: Row = {"step": step, **means, **rates}
        row["seconds"], self._since, self.sums, self.last = now - self._since, now, {}, row
        with self._harmless(str(self._path)):
            self._write(row)
        for name, logger in self._loggers.items():
            with self._harmless(name, Exception):
                logger.log(step, {key: value for key, value in row.items() if key != "step"})
        if self.on_row:
            with self._harmless("the output"):
                self.on_row(row)

    def _write(self, row: Row) -> None:
        if self._file:
            line = (b"\n" if self._torn else b"") + line_of(row)
            self._torn = True  # until the whole line is written: a full disk may take a part of it
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False

    @contextmanager
    def _harmless(self, what: str, kind: type[Exception] = OSError) -> Iterator[None]:
        """Turns a full disk, a closed pipe or another error into a warning, once for each `what`: it must not stop the
        training."""
        try:
            yield
        except FileRefused:  # this is no accident, and it is found before the first step
            raise
        except kind as error:
            if what not in self._warned:
                self._warned.add(what)
                why = getattr(error, "strerror", None) or one_line(error)
                warnings.warn(f"{what}: cannot be written: {why}; training goes on", LogWarning, stacklevel=4)


def _row(line: bytes) -> Row | None:
    """Parses a line; None for an incomplete one, as a full disk or a crash leaves it, for one whose checksum does not
    match, and for anything but a row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, dict) and "crc32" in row:
        check = CHECK.search(line)
        if check is None or int(check[1], 16) != zlib.crc32(line[: check.start()]):
            return None
        del row["crc32"]
    counted = isinstance(row, dict) and type(step := row.get("step")) is int and 0 <= step < 2**53
    return row if counted else None


def _end_of_row(data: bytes, step: int) -> int:
    """The number of bytes up to the end of the last row whose step is at most `step`."""
    end = 0
    for line in BytesIO(data):
        row = _row(line)
        if not line.endswith(b"\n") or (row and row["step"] > step):
            break
        end += len(line)
    return end
