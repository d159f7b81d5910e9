"""Runs jobs as tasks of a Ray cluster: on this machine, or on all machines that share the experiment's folder."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from gentraj.envs.registration import import_named

from ..files import write_file
from ..progress import busy, one_line, say
from .jobs import SECONDS_TO_SAVE, Job, cpus

RETRIES = 5  # how often a job is repeated whose worker was lost
LOCAL, MARKER = "local", ".ray"
# Prefixes of the environment variables that workers get, such as those of the folders of datasets.
CARRIED = ("GENTRAJ_", "MINARI_", "D4RL_", "OGBENCH_", "HF_HOME", "HF_LEROBOT_HOME")
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to Ray's makers
            "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # nor printed: what matters is said in the lines of the jobs
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # as Ray will do by itself; it says so until then
ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for "no other machine": it binds to 127.0.0.1
               "RAY_worker_niceness": "0"}  # as processes here
OBJECTS = 100_000_000  # bytes of Ray's object store on this machine; results are files


@dataclass(frozen=True)
class Surroundings:
    """What a worker takes over from the command that started it."""

    folder: Path
    directory: Path
    environment: Mapping[str, str]
    token: str

    @classmethod
    def of(cls, folder: Path) -> Surroundings:
        """Those of this process. Writes a marker into the folder, which every worker must see."""
        variables = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
        made = cls(folder.resolve(), Path.cwd(), variables, secrets.token_hex(8))
        write_file(made.folder / MARKER, made.token.encode())
        return made

    @property
    def are_seen(self) -> bool:
        """Whether this machine sees the marker and the working directory."""
        try:
            return (self.folder / MARKER).read_text() == self.token and self.directory.is_dir()
        except OSError:
            return False

    def not_seen(self, machine: str) -> str:
        """The line for a machine that does not see them."""
        return (f"the machine {machine} does not see {self.folder} or the working directory {self.directory}; all "
                "machines of the cluster must share both, under the same paths")

    def enter(self) -> None:
        """Makes them this worker's."""
        os.chdir(self.directory)  # paths in settings are relative to it
        os.environ.update(self.environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # by it Ray interrupts; nohup and & have it ignored
        torch.set_num_threads(1)
        import_named()


@dataclass(eq=False)
class _Attempts:
    """A job and the attempt that is under way."""

    job: Job
    ref: Any = None
    number: int = 0


class RayTasks:
    """Tasks of a Ray cluster, each with one CPU and one thread; as many at a time as the cluster has CPUs, or `number`.

    GPUs are shared out evenly: each task sees one of them, where there are some. A task whose worker was killed or
    whose machine was lost is repeated up to `RETRIES` times, which is said in a line each; a training goes on from its
    last checkpoint.

    Args:
        folder: The folder that all jobs write to.
        address: As in `ray.init`; by default the environment variable RAY_ADDRESS, or else a cluster of this machine
            alone, which ends with this process.
        number: The most tasks at a time.

    Raises ImportError without Ray. The first job raises ConnectionError if no cluster is at the address, and ValueError
    if one of its machines does not see the folder.
    """

    def __init__(self, folder: Path, address: str | None = None, number: int | None = None):
        if find_spec("ray") is None:
            raise ImportError("--ray needs Ray, which is not installed: pip install 'gentraj[scale]'")
        self.folder, self.address = folder, address or os.environ.get("RAY_ADDRESS") or LOCAL
        self.most = number

    @cached_property
    def ray(self) -> ModuleType:
        """The module `ray`, connected to a cluster whose machines have all been checked."""
        for name, value in (SETTINGS | (ONE_MACHINE if self.address == LOCAL else {})).items():
            os.environ.setdefault(name, value)  # read when ray is imported
        ray = import_module("ray")
        if not ray.is_initialized():
            with busy("starting Ray" if self.address == LOCAL else f"connecting to Ray at {self.address}"):
                self._connect(ray)
        self._check_machines(ray)
        return ray

    @cached_property
    def surroundings(self) -> Surroundings:
        return Surroundings.of(self.folder)

    @property
    def number(self) -> int:
        available = max(1, int(self.ray.cluster_resources().get("CPU", 1)))  # machines may join and leave
        return min(available, self.most or available)

    def start(self, job: Job) -> _Attempts:
        return self._again(_Attempts(job))

    def ended(self, running: Mapping[_Attempts, Job], seconds: float) -> list[tuple[_Attempts, str | None]]:
        refs = {attempts.ref: attempts for attempts in running}
        done, _ = self.ray.wait(list(refs), timeout=seconds, fetch_local=False)
        ended = []
        for attempts in map(refs.__getitem__, done):
            problem, is_lost = self._result(attempts)
            if is_lost and attempts.number <= RETRIES:
                say(f"{attempts.job.name}: {problem}; attempt {attempts.number + 1} of {RETRIES + 1}")
                self._again(attempts)
            else:
                ended.append((attempts, problem))
        return ended

    def stop(self, running: Iterable[_Attempts]) -> None:
        if not (refs := [attempts.ref for attempts in running]):
            return
        for ref in refs:
            self.ray.cancel(ref, recursive=False)  # as Ctrl-C in the worker: a training saves
        _, left = self.ray.wait(refs, num_returns=len(refs), timeout=SECONDS_TO_SAVE, fetch_local=False)
        for ref in left:
            self.ray.cancel(ref, force=True, recursive=False)

    def _connect(self, ray: ModuleType) -> None:
        options: dict[str, Any] = {"address": self.address, "log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            options |= {"num_cpus": self.most or cpus(), "include_dashboard": False, "object_store_memory": OBJECTS,
                        "_node_ip_address": "127.0.0.1"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise ConnectionError(f"--ray: no cluster answers at {self.address} ({one_line(error)}); `ray start "
                                  "--head` starts one, and --ray without an address uses this machine alone") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own in the place

    def _check_machines(self, ray: ModuleType) -> None:
        """Raises ValueError if a machine of the cluster does not see the folder, or lacks gentraj."""
        on_node = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        look = ray.remote(num_cpus=0, max_retries=RETRIES)(_sees)
        nodes = {node["NodeManagerHostname"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
        looks = {name: look.options(scheduling_strategy=on_node(node, soft=False)).remote(
            self.surroundings) for name, node in nodes.items()}
        for name, ref in looks.items():
            try:
                sees = ray.get(ref)
            except ray.exceptions.RayError as error:
                raise ValueError(f"--ray: the machine {name} cannot run jobs ({one_line(error)}); install the same "
                                 "gentraj on all machines of the cluster") from error
            if not sees:
                raise ValueError(f"--ray: {self.surroundings.not_seen(name)}")

    def _again(self, attempts: _Attempts) -> _Attempts:
        attempts.number += 1
        gpus = min(1.0, self.ray.cluster_resources().get("GPU", 0) / self.number)  # a share for each job at a time
        task = self.ray.remote(num_cpus=1, num_gpus=math.floor(1e4 * gpus) / 1e4, max_retries=0)(_work)
        attempts.ref = task.remote(self.surroundings, *attempts.job[1:3])
        return attempts

    def _result(self, attempts: _Attempts) -> tuple[str | None, bool]:
        """Why the job has failed, or None, and whether its worker was lost."""
        try:
            code = self.ray.get(attempts.ref)
        except self.ray.exceptions.RayTaskError as error:
            return f"failed: {one_line(error.cause)}", False
        except self.ray.exceptions.RayError as error:  # the worker was killed, memory ran out, or the machine is lost
            return f"its worker was lost ({type(error).__name__})", True
        if (stopped := code - 128) in set(signal.Signals):
            return f"its worker was stopped by {signal.Signals(stopped).name}", True
        return f"ended with code {code}" if code else None, False


def _sees(surroundings: Surroundings) -> bool:
    return surroundings.are_seen


def _work(surroundings: Surroundings, function: Callable[..., None], arguments: tuple[Any, ...]) -> int:
    """Runs a job in a worker and returns its exit code. Raises OSError where the shared folder is missing."""
    if not (surroundings.folder / MARKER).is_file():  # on a machine that has joined since the start
        raise FileNotFoundError(surroundings.not_seen(os.uname().nodename))
    surroundings.enter()
    try:
        function(*arguments)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    return 0
