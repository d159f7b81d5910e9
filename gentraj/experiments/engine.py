"""One engine for every experiment: task -> jobs in processes -> results kept by key -> statistics -> page.

An experiment (`compare`, `ablate`, `reproduce`) says which tasks there are and what is measured of each; `run` does
what is not done yet, and the tasks then hold their results. What changed is done anew, because its key is another.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from ..config import read_json, to_json
from ..device import pick_device
from ..files import write_file
from ..progress import say
from ..runs import folder as runs
from ..runs.model_card import dataset_names
from ..training.checkpoint import RunLocked, has_checkpoints
from ..training.loop import Interrupted
from .processes import Job, run_jobs

LOG, WARNINGS, FAILURES = "log.txt", "warnings.txt", "failures.json"
UNLOCKING = 60.0  # seconds to wait for a training whose parent was killed, while it saves and ends


@dataclass(frozen=True)
class Measure:
    """Something that is measured of a run, as JSON holds it."""

    name: str
    """The stem of the file that keeps the result."""
    make: Callable[[runs.Run], Any]
    """A function that can be imported, or a `partial` of one: it is sent to a process."""
    asked: Mapping[str, Any]
    """What the result depends on besides the run."""


@dataclass(frozen=True)
class Task:
    """One training with one seed, or a run that is already there, and what is measured of it."""

    cell: tuple[str, str]
    """Row and column of the experiment's table. The tasks of a cell differ in their seeds only."""
    name: str
    place: Path
    """Its folder, without the suffix that `folder` adds."""
    config: runs.AnyRunConfig
    sha256: str
    """`episodes_hash` of the data."""
    measures: tuple[Measure, ...]
    there: Path | None = None
    """The folder of a run that is already there, which is measured and not trained."""

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @cached_property
    def folder(self) -> Path:
        """Named by everything that the training depends on, so that another training has another folder."""
        decides = ({"run": deciding(self.config), "sha256": self.sha256} if self.there is None
                   else {"folder": str(self.there.resolve())})
        return self.place.with_name(f"{self.place.name}-{digest(decides)[:8]}")

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.there or self.folder / "run"

    def key(self, measure: Measure) -> dict[str, Any]:
        """Everything that the result depends on. Where the data lie is no part of it."""
        config = to_json(self.config) | {"dataset": "+".join(dataset_names(self.config.dataset))}
        return {"run": config, "sha256": self.sha256, **measure.asked}

    def path(self, measure: Measure) -> Path:
        return self.folder / f"{measure.name}.json"

    def measured(self, measure: Measure, run: Callable[[], runs.Run]) -> Any:
        """The result that is kept for the key; without one, it is measured."""
        return kept(self.path(measure), self.key(measure), lambda: measure.make(run()))

    @property
    def results(self) -> dict[str, Any]:
        """Name of the measure -> its result, where it is done."""
        return {one.name: read_result(self.path(one)) for one in self.measures
                if is_kept(self.path(one), self.key(one))}

    @property
    def is_done(self) -> bool:
        return len(self.results) == len(self.measures)

    @property
    def failure(self) -> str:
        """Why it is not done, after it was tried."""
        path = self.folder / FAILURES
        failures = read_json(path) if path.is_file() else {}
        return failures.get(self.name, "its process was killed, perhaps for want of memory")

    @property
    def warnings(self) -> list[str]:
        """What was warned of in its training."""
        path = self.folder / WARNINGS
        return path.read_text().splitlines() if path.is_file() else []


def run(tasks: Iterable[Task], number: int, device: str | None,
        outcome: Callable[[Sequence[Task]], str]) -> dict[str, str]:
    """Does what is not done yet, in `number` processes side by side; returns why tasks failed, by their names.

    Tasks that share a folder share a training and a process. `outcome` is called whenever a process has ended well,
    with its tasks, and returns the line to print. Raises `JobsStopped` after SIGINT or SIGTERM.
    """
    together: dict[Path, list[Task]] = {}
    for task in tasks:
        if not task.is_done:
            together.setdefault(task.folder, []).append(task)
    run_jobs([Job(some[0].name, work, (some, device), lambda some=some: outcome(some)) for some in together.values()],
             number)
    failed = [task for some in together.values() for task in some if not task.is_done]
    for task in failed:
        say(f"{task.name} failed: {task.failure}; see {task.folder / LOG}")
    return {task.name: task.failure for task in failed}


def work(tasks: Sequence[Task], device: str | None) -> None:
    """What a process does with tasks that share a folder: as much as is not done yet; one that fails stops no other.

    What it prints goes to log.txt in the folder. Exits with 1 where a task failed, and with the code of a signal.
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
                failures[task.name] = " ".join(str(error).split()) or type(error).__name__
    if failures:
        write_json(folder / FAILURES, failures)
        raise SystemExit(1)


def _do(task: Task, device: torch.device) -> None:
    if task.there is not None:
        run = runs.load(task.there, device=device)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = partial(_note, task.folder / WARNINGS)
            run = trained(task.config, task.run, device)
    for measure in task.measures:
        try:
            task.measured(measure, lambda: run)
        except ValueError as error:  # a number that is not finite among them
            raise ValueError(f"{measure.name} cannot be measured: {error}") from error


def _note(path: Path, message: Warning | str, *_: Any) -> None:
    """Adds a line to the file, once; a training that was killed has left its own."""
    line = " ".join(str(message).split())
    before = path.read_text() if path.exists() else ""
    if line not in before.splitlines():
        path.write_text(f"{before}{line}\n")


def trained(config: runs.AnyRunConfig, folder: Path, device: torch.device) -> runs.Run:
    """The run of that config: begun, or gone on with from its last checkpoint, which may be its end.

    Raises what `runs.train` raises, `RunLocked` after a minute only.
    """
    deadline = time.monotonic() + UNLOCKING
    while True:
        try:
            return runs.train(config, folder, resume=has_checkpoints(folder), device=device, progress=False)
        except RunLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def deciding(config: runs.AnyRunConfig) -> dict[str, Any]:
    """The settings that a training depends on: neither how a planner plans nor where the data lie."""
    apart = [key for key in config.MAY_CHANGE if key != "training"]
    return {key: value for key, value in to_json(config).items() if key not in apart}


def known(names: Sequence[str], there: Iterable[str], what: str) -> None:
    """Raises ValueError for a name that is not there, and for one that is given twice or for none."""
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown {what} '{name}'; known: {', '.join(there)}{hint}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"each {what} is expected once, and at least one; {', '.join(names) or 'none'} was given")


# -- the cache


def kept(path: Path, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """The result in a file that was made for the same key; otherwise it is made, and written whole."""
    if is_kept(path, key):
        return read_result(path)
    result = make()
    write_json(path, {"key": key, "result": result})
    return result


def is_kept(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether `kept` would find the result there."""
    return path.is_file() and read_json(path).get("key") == key


def read_result(path: Path) -> Any:
    """What `kept` left in the file; None without one."""
    return read_json(path)["result"] if path.is_file() else None


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Raises ValueError for numbers that are not finite."""
    return write_file(path, json.dumps(value, indent=1, allow_nan=False).encode())


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
