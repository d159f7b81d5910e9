"""What a training tells: `metrics.jsonl`, a progress bar, TensorBoard. None of them can stop a training."""

from __future__ import annotations

import errno
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..progress import bar

FILE = "metrics.jsonl"
Row = dict[str, Any]
Sums = dict[str, list[float]]
"""Of each metric the sum since the last row, and over how many steps."""


class LogWarning(UserWarning):
    """Something could not be logged."""


def read_metrics(folder: Path) -> list[Row]:
    """The rows of a run: {"step", "{component}/{metric}": mean since the row before, "seconds": since then}.

    A mean is of the steps that had the metric; a row without any lacks it. "{component}/lr" is the present learning
    rate, "{component}/lr-{optimizer}" that of each of several.
    """
    return read_rows(folder / FILE)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of one JSON object with a "step" a line; none where there is no such file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        return [row for line in file if (row := _row(line))]


class Log:
    """Collects the metrics of each step and writes a row every `every` steps, and at the last of `steps`.

    `start` and `sums` continue an interrupted run: rows after step `start` are dropped, they will be written again.
    """

    def __init__(self, folder: Path, every: int, steps: int, *, start: int = 0, sums: Sums | None = None,
                 progress: bool = True, tensorboard: bool = False, on_row: Callable[[Row], None] | None = None):
        self.every, self.steps, self.on_row = every, steps, on_row
        self.sums: Sums = dict(sums or {})  # saved with a checkpoint: means must not lose steps
        self.last: Row = {}
        self._warned: set[str] = set()
        self._torn, self._file, self._path = False, None, folder / FILE
        self._writer = None
        if tensorboard:
            self._writer = tensorboard_writer()(str(folder / "tensorboard"), purge_step=start + 1)
        with self._harmless(str(self._path)):
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (closed in __exit__)
            os.truncate(self._path, _end_of_row(self._path, start) if start else 0)
        self._bar = bar(steps, "training", initial=start, shown=progress)
        self._since = time.monotonic()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        for close in (self._bar.close, self._file and self._file.close, self._writer and self._writer.close):
            if close:
                with self._harmless("the log"):
                    close()

    def record(self, step: int, metrics: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """The metrics of the step that made it `step` steps, and the learning rates used."""
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
        """What is done in this block is no training, and its time is not told as such."""
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
        if self._writer:
            with self._harmless("TensorBoard"):
                for key in row.keys() - {"step"}:
                    self._writer.add_scalar(key, row[key], step)
        if self.on_row:
            with self._harmless("the output"):
                self.on_row(row)

    def _write(self, row: Row) -> None:
        if self._file:
            line = (b"\n" if self._torn else b"") + json.dumps(row).encode() + b"\n"
            self._torn = True  # until the whole line is out: a full disk takes a part of it
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._torn = False

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """A full disk or a closed pipe costs the log, never the training; said once."""
        try:
            yield
        except OSError as error:
            if what not in self._warned:
                self._warned.add(what)
                warnings.warn(f"{what}: cannot be written: {error.strerror or error}; training goes on",
                              LogWarning, stacklevel=4)


def _row(line: bytes) -> Row | None:
    """None for a torn line, which a full disk or a crash has left."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _end_of_row(path: Path, step: int) -> int:
    """The number of bytes up to the end of the last row that is not after `step`."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            row = _row(line)
            if not line.endswith(b"\n") or (row and row["step"] > step):
                break
            end += len(line)
    return end


def tensorboard_writer() -> Any:
    """Its class. Raises `ConfigError` where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("tensorboard needs a package that is missing: pip install 'gentraj[tensorboard]'") from error
    return SummaryWriter
