"""The engine of experiments: tasks -> jobs in processes -> scores stored by key -> statistics -> page.

An experiment (`sweep`, `reproduce`) defines its tasks. `run` does those that are not done yet, and the tasks then hold
their scores. A task whose settings or data have changed has another key, so it is done again.
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
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import torch

from gentraj.envs.evaluation.scores import normalised
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.making import EnvironmentFactory, ProtocolName, environment_factory

from ..config import from_json, read_json, to_json, write_json
from ..data.sources import dataset_names
from ..device import pick_device, require_device
from ..progress import one_line, say
from ..runs.judge.evaluation import score_run
from ..runs.kinds.folder import acts_only
from ..runs.kinds.run import Run, RunConfig
from ..runs.learn.training import train
from ..training.checkpoint import RunLocked, has_checkpoints
from ..training.log import read_metrics
from ..training.loop import Interrupted
from .cards import Score, SeedResult
from .pools import Job, LocalProcesses, Pool, run_jobs

LOG = "log.txt"
FAILURES = "failures.json"
PACKAGES = ("gentraj", "torch", "numpy", "gymnasium", "mujoco")  # whose versions a score names
SECONDS_TO_UNLOCK = 60.0  # seconds to wait until a training whose parent was killed has saved and ended


@dataclass(frozen=True)
class RunTask:
    """One training with one seed, and the score of its last checkpoint."""

    cell: tuple[str, str]
    """Row and column of the experiment's table. The tasks of a cell differ only in their seeds."""
    name: str
    place: Path
    """The folder of the task, without the suffix that `folder` adds."""
    config: RunConfig
    sha256: str
    """The hash of the data, by `episodes_hash`."""
    scoring: Mapping[str, Any]
    """The arguments of `seed_result`."""

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @cached_property
    def folder(self) -> Path:
        """The folder of the task. Its name has a digest of all that the training depends on."""
        determining = {"run": training_settings(self.config), "sha256": self.sha256}
        return self.place.with_name(f"{self.place.name}-{digest(determining)[:8]}")

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "run"

    @property
    def path(self) -> Path:
        """The file of the score."""
        return self.folder / f"{self.cell[0]}.json"

    @property
    def key(self) -> dict[str, object]:
        """Everything that the score depends on. The path of the data is not part of it."""
        config = to_json(self.config) | {"dataset": "+".join(dataset_names(self.config.dataset))}
        return {"run": config, "sha256": self.sha256, **self.scoring}

    @property
    def result(self) -> SeedResult | None:
        """The stored score; None until it is done."""
        stored = read_json(self.path) if self.path.is_file() else {}
        if stored.get("key") != self.key:
            return None
        return from_json(SeedResult, stored["result"], str(self.path))

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
        if task.result is None:
            groups.setdefault(task.folder, []).append(task)
    if isinstance(pool, LocalProcesses):
        require_device(device)
    run_jobs([Job(group[0].name, work, (group, device), lambda group=group: outcome(group))
              for group in groups.values()], pool)
    failed = [task for group in groups.values() for task in group if task.result is None]
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
    run = trained(task.config, task.run, device)
    if task.result is None:
        try:
            result = to_json(seed_result(run, **task.scoring))
            write_json(task.path, {"key": task.key, "result": result})
        except ValueError as error:  # also raised for a number that is not finite
            raise ValueError(f"the score cannot be measured: {error}") from error


def trained(config: RunConfig, folder: Path, device: torch.device) -> Run:
    """Trains a run in a folder, from its last checkpoint if there is one, and returns it.

    Raises what `gentraj.runs.train` raises; `RunLocked` only after waiting for a minute.
    """
    deadline = time.monotonic() + SECONDS_TO_UNLOCK
    while True:
        try:
            return train(config, folder=folder, resume=has_checkpoints(folder), device=device, progress=False)
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


# -- the score of a run


def seed_result(run: Run, episodes: int, protocol: ProtocolName, score: Score, seed: int = 0) -> SeedResult:
    """Evaluates a run in the episodes of a seed."""
    config = EvaluationConfig(episodes=episodes, seed=seed, protocol=protocol, baselines=False)
    evaluation = score_run(run, config, progress=False)
    factory = environment_factory(str(run.data.env), protocol=protocol)
    scores = episode_scores(score, evaluation.recorded.returns.tolist(), evaluation["successes"], factory)
    seconds = sum(row["cpu_seconds"] for row in read_metrics(run.folder))
    versions = {"python": python_version()} | {name: version(name) for name in PACKAGES}
    return SeedResult(run.config.training.seed, evaluation["agent"], run.step, evaluation["sampling"],
                      tuple(scores), seconds, versions, evaluation["latency_ms_p50"])


def episode_scores(score: Score, returns: Sequence[float], successes: Sequence[bool] | None,
                   factory: EnvironmentFactory) -> list[float]:
    """The score of each episode, in the order of the episodes. Raises ValueError for a success that is not defined."""
    if score == "success_rate":
        if successes is None:
            raise ValueError(f"{factory.env_id} has no success rate; give another score")
        return [*map(float, successes)]
    if score == "return_mean":
        return [*returns]
    return [value for mean in returns if (value := normalised(mean, factory)[score]) is not None]
