"""The log of a training: `metrics.jsonl`, a progress bar, TensorBoard and Weights & Biases.

A further logger is a class with `log` and `close` and a line of `LOGGERS`. A failing log never stops the training.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..config import ConfigError
from ..files import write_file
from ..progress import bar, one_line

FILE = "metrics.jsonl"
Row = dict[str, Any]
Sums = dict[str, list[float]]
"""For each metric, its sum since the last row and the number of steps in that sum."""


class LogWarning(UserWarning):
    """A part of the log could not be written."""


def read_metrics(folder: Path) -> list[Row]:
    """Reads the rows of a run's metrics.jsonl, one dict every `log_every` steps.

    A row holds "step", the mean of each "{component}/{metric}" since the row before, the "seconds" since then, and the
    "cpu_seconds" that all threads of this process took in them, which other programs on the machine do not add to.
    Means are over the steps that reported the metric; a row lacks metrics that no step reported. The current learning
    rate is "{component}/lr", or "{component}/lr-{optimizer}" where a component has several optimisers.
    """
    return read_rows(folder / FILE)


def read_rows(path: Path) -> list[Row]:
    """Reads a file with one JSON object a line, each with a "step"; a missing file has no rows.

    Lines that are no rows, as a crash leaves one at the end, are left out.
    """
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [row for row in map(_row, lines) if row is not None]


def write_rows(path: Path, rows: list[Row]) -> Path:
    """Writes a whole file that `read_rows` reads."""
    return write_file(path, b"".join(map(_line, rows)))


def add_row(path: Path, row: Row) -> Path:
    """Writes a row after those of earlier steps, in the place of any later ones, as a resumed training does."""
    return write_rows(path, [*(earlier for earlier in read_rows(path) if earlier["step"] < row["step"]), row])


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def _line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


class JsonLines:
    """The logger of metrics.jsonl. Rows after step `start` are removed: they will be written again."""

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]):
        self.path = folder / FILE
        rows = read_rows(self.path) if start else []
        write_rows(self.path, [row for row in rows if row["step"] <= start])
        self.file = self.path.open("ab")

    def log(self, step: int, row: Mapping[str, float]) -> None:
        if self.path.parent.exists() and not self.path.exists():  # the folder is another one
            self.file.close()
            self.file = self.path.open("ab")
        self.file.write(_line({"step": step, **row}))
        self.file.flush()  # what a full disk does not take is kept for the next time

    def close(self) -> None:
        self.file.close()


class Log:
    """Collects the metrics of each step and gives a row to the loggers every `every` steps, and after the last step.

    A training that stops before has a shorter last row, which a resumed one replaces. `start` and `sums` continue an
    interrupted run, whose row is written again once a step was done. `on_row` is given the rows too.
    """

    def __init__(self, every: int, steps: int, start: int, sums: Sums, *, progress: bool = False,
                 loggers: Mapping[str, Logger] | None = None, on_row: Callable[[Row], None] | None = None):
        self.every = every
        self.steps = steps
        self.on_row = on_row
        self.loggers = dict(loggers or {})
        self.sums: Sums = dict(sums)  # saved with each checkpoint, so that means lose no steps on resume
        self.last: Row = {}
        self.start = start
        self.step = start
        self.rates: Mapping[str, float] = {}
        self._warned: set[str] = set()
        self._bar = bar(steps, "training", initial=start, shown=progress)
        self._since = _now()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        with self._harmless("the progress bar"):
            self._bar.close()
        if self.sums and self.step > self.start:  # else the row of these sums was written before
            self._emit()
        for name, logger in self.loggers.items():
            with self._harmless(name, Exception):
                logger.close()

    def record(self, step: int, metrics: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """Adds the metrics and the learning rates of a step, after which `step` steps are done."""
        self.step = step
        self.rates = rates
        for key, value in metrics.items():
            total, count = self.sums.get(key, (0.0, 0))
            self.sums[key] = [total + value, count + 1]
        with self._harmless("the progress bar"):
            self._bar.set_postfix_str(" ".join(f"{k} {v:.3g}" for k, v in list(metrics.items())[:1]), refresh=False)
            self._bar.update()
        if step % self.every == 0 or step == self.steps:
            self._emit()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the `with` block from the seconds of training."""
        began = _now()
        try:
            yield
        finally:
            paused = _elapsed(began, _now())
            self._since = {key: since + paused[key] for key, since in self._since.items()}

    def _emit(self) -> None:
        now, means = _now(), {key: total / count for key, (total, count) in self.sums.items()}
        row: Row = {"step": self.step, **means, **self.rates, **_elapsed(self._since, now)}
        self._since = now
        self.sums = {}
        self.last = row
        for name, logger in self.loggers.items():
            with self._harmless(name, Exception):
                logger.log(self.step, {key: value for key, value in row.items() if key != "step"})
        if self.on_row is not None:
            with self._harmless("the output"):
                self.on_row(row)

    @contextmanager
    def _harmless(self, what: str, kind: type[Exception] = OSError) -> Iterator[None]:
        """Turns a full disk, a closed pipe or another error into a warning, once for each `what`: it must not stop the
        training."""
        try:
            yield
        except kind as error:
            if what not in self._warned:
                self._warned.add(what)
                _warn(what, error)


def _now() -> dict[str, float]:
    return {"seconds": time.monotonic(), "cpu_seconds": time.process_time()}


def _elapsed(since: dict[str, float], until: dict[str, float]) -> dict[str, float]:
    return {key: until[key] - began for key, began in since.items()}


PROJECT = "gentraj"  # unless the logger's own environment variable names another


class Logger(Protocol):
    """Takes the rows of a training in `folder`, of which `start` steps were done before, and its `settings`."""

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]): ...

    def log(self, step: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases, whose files are in the folder `wandb` of the run; a resumed training continues it.

    The project is $WANDB_PROJECT or "gentraj", and WANDB_MODE=offline sends nothing.
    """

    def __init__(self, folder: Path, start: int, settings: Mapping[str, object]):
        import wandb

        # folders such as offline-run-20250131_120000-id
        known = sorted(path.name.split("-")[-2:] for path in (folder / "wandb").glob("*run-*"))
        before = known[-1][-1] if start and known else None
        self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.name, dir=str(folder),
                              id=before, resume="allow" if before else None, reinit="create_new", config=dict(settings))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=step)

    def close(self) -> None:
        self.run.finish()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB}


def require_loggers(names: Iterable[str]) -> None:
    """Raises `ConfigError` for the first of these loggers whose package is not installed."""
    for name in names:
        if find_spec(name) is None:  # packages and extras have the loggers' names
            raise ConfigError(f"the logger {name} needs a package that is missing: pip install 'gentraj[{name}]'")


def start_loggers(names: Iterable[str], folder: Path, start: int, settings: Mapping[str, object]) -> dict[str, Logger]:
    """Starts the logger of metrics.jsonl and others by their names in `LOGGERS`.

    One that fails is left out with a `LogWarning`.
    """
    loggers: dict[str, Logger] = {}
    for name, logger in [(FILE, JsonLines), *((name, LOGGERS[name]) for name in names)]:
        try:
            loggers[name] = logger(folder, start, settings)
        except Exception as error:  # each has its own kinds
            _warn(name, error)
    return loggers


def _warn(what: str, error: Exception) -> None:
    why = getattr(error, "strerror", None) or one_line(error)
    warnings.warn(f"{what}: cannot be written: {why}; training goes on", LogWarning, stacklevel=5)
