"""Runs jobs side by side, by default in processes of their own, which stop when this process is stopped or dies."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

import torch

from gentraj.envs.registration import import_named

from ..process import end_with_parent
from ..progress import bar, one_line, say
from ..training.loop import Interrupted, Interrupts

SECONDS_TO_SAVE = 30.0  # for a process whose parent has died


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
