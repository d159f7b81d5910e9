"""Jobs in processes of their own, some at a time, which stop when this one is told to, or dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch

from envs.rendering.headless import import_named

from ..progress import bar, say
from ..training.loop import Interrupted, Interrupts

SAVING = 30.0  # seconds that a process whose parent has died may take to save and end


class Job(NamedTuple):
    """`function(*arguments)` in a new process, so both are importable; what it makes it leaves in files."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    outcome: Callable[[], str]
    """What to say of it when it has ended well."""


class JobsStopped(Interrupted):
    """All jobs were stopped by a signal."""

    def __init__(self, received: int):
        RuntimeError.__init__(self, f"stopped by {signal.Signals(received).name}; what was done is saved, and the same "
                              "command goes on with it")
        self.exit_code = 128 + received


def run_jobs(jobs: Sequence[Job], number: int) -> None:
    """Runs them, `number` at a time.

    Raises `JobsStopped` after SIGINT or SIGTERM, when all processes have ended: they were sent SIGTERM.
    """
    waiting, running = list(jobs), dict[BaseProcess, Job]()
    with Interrupts() as interrupts, bar(len(jobs), "runs", "jobs", shown=bool(jobs)) as done:
        try:
            while waiting or running:
                while waiting and len(running) < number:
                    job = waiting.pop(0)
                    # Not forked: a copy of a process that has used torch's threads may hang.
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
                    said = f"ended with code {process.exitcode}" if process.exitcode else job.outcome()
                    say(f"{job.name}: {said}")
                    done.update()
        finally:
            for process in running:
                process.terminate()  # a training saves first
            for process in running:
                process.join()


def _work(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Where every process begins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the first process passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        import_named()
        function(*arguments)
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"gentraj: error: {' '.join(str(error).split())}") from error


def _end_with_parent() -> None:
    """When the parent has died, of SIGKILL too: this process is told to save and end, and is killed if it does not."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAVING)
        os._exit(128 + signal.SIGTERM)


def cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
