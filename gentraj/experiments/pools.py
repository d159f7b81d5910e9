"""Runs jobs side by side: in processes of this machine, which stop when this process is stopped or dies, or as tasks of
a Ray cluster of several machines."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import torch

from gentraj.envs.making import import_named

from ..files import write_file
from ..process import end_with_parent
from ..progress import bar, busy, one_line, say
from ..training.loop import Interrupted, Interrupts

SECONDS_TO_SAVE = 30.0  # for a process whose parent has died
RETRIES = 5  # how often a job is repeated whose worker was lost
LOCAL, MARKER = "local", ".ray"
# Prefixes of the environment variables that workers get, such as those of the folders of datasets.
CARRIED = ("GENTRAJ_", "MINARI_", "D4RL_", "OGBENCH_", "HF_HOME", "HF_LEROBOT_HOME")
RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to Ray's makers
                "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # nor printed: what matters is said in the lines of the jobs
                "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # as Ray will do by itself; it says so until then
RAY_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "no other machine": it binds to 127.0.0.1
             "RAY_worker_niceness": "0"}  # as processes here
OBJECT_STORE_BYTES = 100_000_000  # of Ray on this machine; results are files


class Job(NamedTuple):
    """A call `function(*arguments)` in another process. Both must be picklable; the results are written to files."""

    name: str
    function: Callable[..., None]
    arguments: tuple[object, ...]
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


# -- processes of this machine


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


def _work(function: Callable[..., None], arguments: tuple[object, ...], saving: float) -> None:
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


# -- Ray


@dataclass(frozen=True)
class Surroundings:
    """What a worker takes over from the command that started it."""

    folder: Path
    directory: Path
    environment: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Surroundings:
        """Those of this process. Writes a marker into the folder, which every worker must see."""
        variables = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
        made = cls(folder.resolve(), Path.cwd(), variables)
        write_file(made.folder / MARKER, b"")
        return made

    def enter(self) -> None:
        """Makes them this worker's. Raises FileNotFoundError on a machine that does not see the folder or the working
        directory."""
        if not (self.folder / MARKER).is_file() or not self.directory.is_dir():
            raise FileNotFoundError(f"the machine {os.uname().nodename} does not see {self.folder} or the working "
                                    f"directory {self.directory}; all machines of the cluster must share both, under "
                                    "the same paths")
        os.chdir(self.directory)  # paths in settings are relative to it
        os.environ.update(self.environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # by it Ray interrupts; nohup and & have it ignored
        torch.set_num_threads(1)
        import_named()


class WorkerStopped(RuntimeError):
    """Raised in a worker that a signal has stopped, so that Ray repeats the job."""


class RayTasks:
    """Tasks of a Ray cluster, each with one CPU and one thread; as many at a time as the cluster has CPUs, or `number`.

    GPUs are shared out evenly: each task sees one of them, where there are some. A task whose worker was killed or
    whose machine was lost is repeated up to `RETRIES` times; a training goes on from its last checkpoint.

    Args:
        folder: The folder that all jobs write to.
        address: As in `ray.init`; by default the environment variable RAY_ADDRESS, or else a cluster of this machine
            alone, which ends with this process.
        number: The most tasks at a time.

    Raises ImportError without Ray. The first job raises ConnectionError if no cluster is at the address.
    """

    def __init__(self, folder: Path, address: str | None = None, number: int | None = None):
        if find_spec("ray") is None:
            raise ImportError("Ray is not installed: pip install 'gentraj[scale]'")
        self.folder, self.address = folder, address or os.environ.get("RAY_ADDRESS") or LOCAL
        self.most = number

    @cached_property
    def ray(self) -> ModuleType:
        """The module `ray`, connected to a cluster."""
        for name, value in (RAY_SETTINGS | (RAY_ALONE if self.address == LOCAL else {})).items():
            os.environ.setdefault(name, value)  # read when ray is imported
        ray = import_module("ray")
        if not ray.is_initialized():
            with busy("starting Ray" if self.address == LOCAL else f"connecting to Ray at {self.address}"):
                self._connect(ray)
        return ray

    @cached_property
    def surroundings(self) -> Surroundings:
        return Surroundings.of(self.folder)

    @property
    def number(self) -> int:
        available = max(1, int(self.ray.cluster_resources().get("CPU", 1)))  # machines may join and leave
        return min(available, self.most or available)

    def start(self, job: Job) -> Any:
        gpus = min(1.0, self.ray.cluster_resources().get("GPU", 0) / self.number)  # a share for each task at a time
        task = self.ray.remote(num_cpus=1, num_gpus=math.floor(1e4 * gpus) / 1e4, max_retries=RETRIES,
                               retry_exceptions=[WorkerStopped])(_work_in)
        return task.remote(self.surroundings, job.function, job.arguments)

    def ended(self, running: Mapping[Any, Job], seconds: float) -> list[tuple[Any, str | None]]:
        done, _ = self.ray.wait(list(running), timeout=seconds, fetch_local=False)
        return [(ref, self._problem(ref)) for ref in done]

    def _problem(self, ref: Any) -> str | None:
        """Why the call has failed, or None."""
        try:
            self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            return f"failed: {one_line(error.cause)}"
        except self.ray.exceptions.RayError as error:  # workers were killed, memory ran out, or machines were lost
            return f"its worker was lost {RETRIES + 1} times ({type(error).__name__})"
        return None

    def stop(self, running: Iterable[Any]) -> None:
        refs = list(running)
        if not refs:
            return
        for ref in refs:
            self.ray.cancel(ref, recursive=False)  # as Ctrl-C in the worker: a training saves
        _, left = self.ray.wait(refs, num_returns=len(refs), timeout=SECONDS_TO_SAVE, fetch_local=False)
        for ref in left:
            self.ray.cancel(ref, force=True, recursive=False)

    def _connect(self, ray: ModuleType) -> None:
        options: dict[str, Any] = {"address": self.address, "log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            options |= {"num_cpus": self.most or cpus(), "include_dashboard": False,
                        "object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConnectionError(f"no cluster of Ray answers at {self.address} ({one_line(error)}); `ray start "
                                  "--head` starts one, and Ray without an address uses this machine alone") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own in the place


def _work_in(surroundings: Surroundings, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Makes a call in a worker of Ray. Raises `WorkerStopped` after a signal."""
    surroundings.enter()
    try:
        function(*arguments)
    except SystemExit as stop:
        if stop.code in [128 + one for one in signal.Signals]:
            raise WorkerStopped(f"stopped by {signal.Signals(int(stop.code) - 128).name}") from stop
        if stop.code:
            raise RuntimeError(f"ended with code {stop.code}") from stop
