"""Runs jobs side by side, by default in processes of their own, which stop when this process is stopped or dies; also
the episodes of an evaluation, split over jobs."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from gentraj.envs.evaluation.rollout import DEFAULT_SETTINGS, Rollout, RolloutSettings, join, rollout
from gentraj.envs.registration import import_named

from ..data.npz import open_npz, save_npz
from ..data.sources import load_episodes
from ..files import new_file
from ..process import end_with_parent
from ..progress import bar, one_line, say
from ..training.signals import Interrupted, Interrupts
from ..trajectory import Agent

SECONDS_TO_SAVE = 30.0  # for a process whose parent has died
EPISODES_FILE, NUMBERS_FILE = "episodes.npz", "numbers.npz"  # of a part of an evaluation


class Job(NamedTuple):
    """A call `function(*arguments)` in another process. Both must be picklable; the results are written to files."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    outcome: Callable[[], str]
    """Returns the line to print when the job has succeeded."""


class JobsStopped(Interrupted):
    """Raised when a signal has stopped all jobs."""

    def __init__(self, received: int):
        RuntimeError.__init__(self, f"stopped by {signal.Signals(received).name}; what was done is saved, and the same "
                              "command continues")
        self.exit_code = 128 + received


class Pool(Protocol):
    """Where jobs run at the same time: `LocalProcesses` of this machine, or `RayTasks` of a cluster."""

    @property
    def number(self) -> int:
        """The number of jobs that run at a time; it may change."""
        ...

    def start(self, job: Job) -> Any:
        """Starts a job and returns a handle, which is hashable."""
        ...

    def ended(self, running: Mapping[Any, Job], seconds: float) -> list[tuple[Any, str | None]]:
        """Waits for at most this long; returns the handles of jobs that have ended, and why each failed, or None."""
        ...

    def stop(self, running: Iterable[Any]) -> None:
        """Lets running jobs save, and ends them."""
        ...


class LocalProcesses:
    """`number` processes of this machine at a time, by default as many as CPUs.

    When this process dies, they may take `saving` seconds to save and end.
    """

    def __init__(self, number: int | None = None, saving: float = SECONDS_TO_SAVE):
        self.number = number or cpus()
        self.saving = saving

    def start(self, job: Job) -> BaseProcess:
        # Spawned, not forked: the fork of a process that has used torch's threads may hang.
        process = get_context("spawn").Process(target=_work, args=(*job[1:3], self.saving), name=job.name, daemon=True)
        process.start()
        return process

    def ended(self, running: Mapping[BaseProcess, Job], seconds: float) -> list[tuple[BaseProcess, str | None]]:
        wait([process.sentinel for process in running], timeout=seconds)
        return [(process, f"ended with code {process.exitcode}" if process.exitcode else None)
                for process in running if not process.is_alive()]

    def stop(self, running: Iterable[BaseProcess]) -> None:
        for process in (processes := list(running)):
            process.terminate()  # a training saves before it ends
        for process in processes:
            process.join()


def run_jobs(jobs: Sequence[Job], pool: Pool) -> None:
    """Runs the jobs in the pool, and prints a line when one starts and when it ends.

    After SIGINT or SIGTERM it stops all jobs, which save, and raises `JobsStopped`.
    """
    waiting, running = deque(jobs), dict[Any, Job]()
    with Interrupts() as interrupts, bar(len(jobs), "runs", "jobs", shown=bool(jobs)) as done:
        try:
            while waiting or running:
                while waiting and len(running) < pool.number:
                    job = waiting.popleft()
                    running[pool.start(job)] = job
                    say(f"{job.name}: started")
                ended = pool.ended(running, 0.5)
                done.update(0)
                if interrupts.received is not None:
                    raise JobsStopped(interrupts.received)
                for handle, problem in ended:
                    job = running.pop(handle)
                    say(f"{job.name}: {problem or job.outcome()}")
                    done.update()
        finally:
            pool.stop(running)


def _work(function: Callable[..., None], arguments: tuple[Any, ...], saving: float) -> None:
    """The entry point of every process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent passes it on
    end_with_parent(saving)
    torch.set_num_threads(1)
    try:
        import_named()
        function(*arguments)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"gentraj: error: {one_line(error)}") from error


def cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- the episodes of an evaluation, split by their seeds


class ShardedRollout:
    """Plays episodes as `rollout` does, in as many parts as a pool runs jobs at a time.

    `make_pool` makes the pool for jobs that write into a folder, which is made in `folder` and removed afterwards. An
    episode is a function of its own seed, so the result is the same as in one process with one thread, but for the
    decisions' times. The agent is sent to the jobs.
    """

    def __init__(self, make_pool: Callable[[Path], Pool], folder: Path):
        self.make_pool = make_pool
        self.folder = folder

    def __call__(self, agent: Agent, make_env: Callable[[], Any], episodes: int, seed: int = 0,
                 settings: RolloutSettings = DEFAULT_SETTINGS, *, record: bool = False, progress: bool = True,
                 watch: None = None) -> Rollout:
        """Raises RuntimeError if a part fails, as where an environment is faulty."""
        with TemporaryDirectory(dir=self.folder, prefix=".parts-") as made:
            pool = self.make_pool(Path(made))
            jobs: list[Job] = []
            places: list[Path] = []
            size = -(-episodes // pool.number)
            for first in range(0, episodes, size):
                last = min(first + size, episodes)
                place = Path(made).resolve() / str(first)
                arguments = (place, agent, make_env, last - first, seed, replace(settings, first=first), record)
                what = f"{settings.name}, episodes {first} to {last - 1}"
                jobs.append(Job(what, play_part, arguments, lambda: "done"))
                places.append(place)
            run_jobs(jobs, pool)
            lacking = [place for place in places if not (place / NUMBERS_FILE).is_file()]
            if lacking:
                raise RuntimeError(f"{len(lacking)} of {len(jobs)} parts of the evaluation failed; without --ray, the "
                                   "episodes that finish are scored")
            return join([load_part(place) for place in places])


def play_part(place: Path, agent: Agent, make_env: Callable[[], Any], episodes: int, seed: int,
              settings: RolloutSettings, record: bool) -> None:
    """Plays some of the episodes, and stores them in the folder `place`."""
    save_part(rollout(agent, make_env, episodes, seed, settings, record=record, progress=False), place)


def save_part(played: Rollout, place: Path) -> None:
    """Stores a rollout in a folder, as npz without objects."""
    if played.recorded is not None:
        save_npz(played.recorded, place / EPISODES_FILE)
    found = {field.name: getattr(played, field.name) for field in fields(played) if field.name != "recorded"}
    members: dict[str, Any] = {key: np.asarray(value) for key, value in found.items() if value is not None}
    with new_file(place / NUMBERS_FILE) as file:
        np.savez(file, **members)


def load_part(place: Path) -> Rollout:
    """The rollout that `save_part` stored in the folder."""
    found: dict[str, Any] = {key: value if value.ndim else value.item()
                             for key, value in open_npz(place / NUMBERS_FILE).items()}
    found |= {"seeds": found["seeds"].tolist(), "faults": tuple(found["faults"].tolist()),
              "network_calls": found.get("network_calls")}
    if (place / EPISODES_FILE).is_file():
        found["recorded"] = replace(load_episodes(place / EPISODES_FILE), name=f"rollout in {found['env_id']}")
    return Rollout(**found)
