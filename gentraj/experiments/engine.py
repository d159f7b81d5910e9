"""The engine of every experiment: tasks -> jobs in processes -> results stored by key -> statistics -> page.

An experiment (`compare`, `sweep`, `reproduce`) defines its tasks and what is measured of each. `run` does the tasks
that are not done yet, and the tasks then hold their results. A task whose settings or data have changed has another
key, so it is done again.
"""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from ..config import from_json, read_json, to_json, write_json
from ..device import pick_device, require_device
from ..progress import one_line, say
from ..runs.kinds.folder import acts_only
from ..runs.kinds.loading import load
from ..runs.kinds.run import Run, RunConfig
from ..runs.learn.training import train
from ..runs.show.card import dataset_names
from ..training.checkpoint import RunLocked, has_checkpoints
from ..training.loop import Interrupted
from .pools import Job, LocalProcesses, Pool, run_jobs

R = TypeVar("R")
LOG = "log.txt"
FAILURES = "failures.json"
SECONDS_TO_UNLOCK = 60.0  # seconds to wait until a training whose parent was killed has saved and ended


@dataclass(frozen=True)
class Measurement(Generic[R]):
    """Something that is measured of a run. Its result is of a class of `settings`, which is stored as JSON."""

    name: str
    """The stem of the file that stores the result."""
    make: Callable[[Run], R]
    """The function that measures a run. It must be importable, or a `partial` of such, as it is sent to a process."""
    result: type[R]
    depends_on: Mapping[str, Any]
    """What the result depends on besides the run."""


@dataclass(frozen=True)
class RunTask:
    """One training with one seed, or an existing run, and what is measured of it."""

    cell: tuple[str, str]
    """Row and column of the experiment's table. The tasks of a cell differ only in their seeds."""
    name: str
    place: Path
    """The folder of the task, without the suffix that `folder` adds."""
    config: RunConfig
    sha256: str
    """The hash of the data, by `episodes_hash`."""
    measures: tuple[Measurement[Any], ...]
    existing: Path | None = None
    """The folder of an existing run, which is measured but not trained; None for a training."""

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @cached_property
    def folder(self) -> Path:
        """The folder of the task. Its name has a digest of all that the training depends on."""
        if self.existing is not None:
            determining = {"folder": str(self.existing.resolve())}
        else:
            determining = {"run": training_settings(self.config), "sha256": self.sha256}
        return self.place.with_name(f"{self.place.name}-{digest(determining)[:8]}")

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.existing or self.folder / "run"

    def key(self, measure: Measurement[Any]) -> dict[str, object]:
        """Everything that the result depends on. The path of the data is not part of it."""
        config = to_json(self.config) | {"dataset": "+".join(dataset_names(self.config.dataset))}
        return {"run": config, "sha256": self.sha256, **measure.depends_on}

    def path(self, measure: Measurement[Any]) -> Path:
        return self.folder / f"{measure.name}.json"

    def result(self, measure: Measurement[R]) -> R | None:
        """The stored result; None until it is done."""
        path = self.path(measure)
        stored = read_json(path) if path.is_file() else {}
        if stored.get("key") != self.key(measure):
            return None
        return from_json(measure.result, stored["result"], str(path))

    def measured(self, measure: Measurement[R], run: Callable[[], Run]) -> R:
        """The stored result if there is one; otherwise the run is measured and the result stored."""
        result = self.result(measure)
        if result is None:
            result = measure.make(run())
            write_json(self.path(measure), {"key": self.key(measure), "result": to_json(result)})
        return result

    @property
    def is_done(self) -> bool:
        return all(self.result(measure) is not None for measure in self.measures)

    @property
    def failure(self) -> str:
        """Why the task is not done after an attempt."""
        path = self.folder / FAILURES
        if path.is_file() and self.name in (failures := read_json(path)):
            return failures[self.name]
        return "its process gave no reason: it was killed, perhaps because memory ran out, or the disk is full"


def run(tasks: Iterable[RunTask], pool: Pool, device: str | None,
        outcome: Callable[[Sequence[RunTask]], str]) -> dict[str, str]:
    """Does the tasks that are not done yet, in the pool; returns why tasks failed, by their names.

    Tasks with the same folder share a training and a job. When a job has succeeded, `outcome` is called with its
    tasks and returns the line to print. Raises ValueError for a device that this machine's processes cannot have, and
    `JobsStopped` after SIGINT or SIGTERM.
    """
    groups: dict[Path, list[RunTask]] = {}
    for task in tasks:
        if not task.is_done:
            groups.setdefault(task.folder, []).append(task)
    if isinstance(pool, LocalProcesses):
        require_device(device)
    run_jobs([Job(group[0].name, work, (group, device), lambda group=group: outcome(group))
              for group in groups.values()], pool)
    failed = [task for group in groups.values() for task in group if not task.is_done]
    for task in failed:
        say(f"{task.name} failed: {task.failure}; see {task.folder / LOG}")
    return {task.name: task.failure for task in failed}


def work(tasks: Sequence[RunTask], device: str | None) -> None:
    """Does the tasks of one folder in a process of their own. A task that fails does not stop the others.

    The output goes to log.txt in the folder. Exits with 1 if a task failed, or with the code of a signal.
    """
    folder, failures = tasks[0].folder, {}
    (folder / FAILURES).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        for task in tasks:
            try:
                _do(task, pick_device(device))
            except Interrupted as error:
                raise SystemExit(error.exit_code) from error
            except Exception as error:
                traceback.print_exc()
                failures[task.name] = one_line(error)
    if failures:
        write_json(folder / FAILURES, failures)
        raise SystemExit(1)
    (folder / FAILURES).unlink(missing_ok=True)  # of another command that has waited for this training in vain


def _do(task: RunTask, device: torch.device) -> None:
    if task.existing is not None:
        run = load(task.existing, device=device)
    else:
        run = trained(task.config, task.run, device)
    for measure in task.measures:
        try:
            task.measured(measure, lambda: run)
        except ValueError as error:  # also raised for a number that is not finite
            raise ValueError(f"{measure.name} cannot be measured: {error}") from error


def trained(config: RunConfig, folder: Path, device: torch.device) -> Run:
    """Trains a run in a folder, from its last checkpoint if there is one, and returns it.

    Raises what `gentraj.runs.train` raises; `RunLocked` only after waiting for a minute.
    """
    deadline = time.monotonic() + SECONDS_TO_UNLOCK
    while True:
        try:
            return train(config, folder, resume=has_checkpoints(folder), device=device, progress=False)
        except RunLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def training_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that a training depends on: without those by which an agent acts, and the path of the data."""
    settings = to_json(config)
    for key in ("dataset", *acts_only(config)):
        *groups, name = key.split(".")
        reduce(dict.__getitem__, groups, settings).pop(name, None)
    return settings


def digest(value: Mapping[str, object]) -> str:
    """The SHA-256 of a JSON object, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
