"""Runs jobs in processes of their own, which stop when this process is stopped or dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from envs.registration import import_named

from ..process import end_with_parent
from ..progress import bar, say
from ..training.loop import Interrupted, Interrupts

SAVING = 30.0  # seconds that a process whose parent has died may take to save and end


class Job(NamedTuple):
    """A call `function(*arguments)` in a new process. Both must be picklable; the results are written to files."""

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


def run_jobs(jobs: Sequence[Job], number: int) -> None:
    """Runs the jobs, `number` at a time.

    After SIGINT or SIGTERM it sends SIGTERM to all processes, waits for them and raises `JobsStopped`.
    """
    waiting, running = list(jobs), dict[BaseProcess, Job]()
    with Interrupts() as interrupts, bar(len(jobs), "runs", "jobs", shown=bool(jobs)) as done:
        try:
            while waiting or running:
                while waiting and len(running) < number:
                    job = waiting.pop(0)
                    # Spawned, not forked: the fork of a process that has used torch's threads may hang.
                    process = get_context("spawn").Process(target=_work, args=job[1:3], name=job.name, daemon=True)
                    process.start()
                    running[process] = job
                    say(f"{job.name}: started")
                wait([process.sentinel for process in running], timeout=0.5)
                done.update(0)
                if interrupts.received is not None:
                    raise JobsStopped(interrupts.received)
                for process in [p for p in running if not p.is_alive()]:
                    job = running.pop(process)
                    outcome = f"ended with code {process.exitcode}" if process.exitcode else job.outcome()
                    say(f"{job.name}: {outcome}")
                    done.update()
        finally:
            for process in running:
                process.terminate()  # a training saves before it ends
            for process in running:
                process.join()


def _work(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """The entry point of every process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes; the parent passes it on
    end_with_parent(SAVING)
    torch.set_num_threads(1)
    try:
        import_named()
        function(*arguments)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"gentraj: error: {' '.join(str(error).split())}") from error


def cpus() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
