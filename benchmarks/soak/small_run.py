"""A small trained planner in the smallest maze, and the memory of processes: what several parts of the soak share."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import gentraj
from gentraj.agents.planning.arrival import ArrivalConfig
from gentraj.agents.planning.inverse_dynamics import InverseDynamicsConfig
from gentraj.agents.planning.planner import PlannerConfig
from gentraj.data import save_npz
from gentraj.diffusion import DiffusionConfig
from gentraj.envs.recording.pointmaze import record
from gentraj.networks import TemporalUNetConfig
from gentraj.runs import Run
from gentraj.runs.presets import POINTMAZE
from gentraj.training import TrainingConfig

ENV = "pointmaze-umaze"


def trained_planner(folder: Path, seed: int, planner: PlannerConfig, training: TrainingConfig) -> Run:
    """Records 20,000 steps in the maze, and trains a narrow planner on them into folder / "planner"."""
    data = save_npz(record(ENV, 20_000, seed, progress=False), folder / "maze.npz")
    config = replace(
        POINTMAZE, dataset=str(data), model=DiffusionConfig(TemporalUNetConfig(width=8)), batch_size=8,
        inverse=InverseDynamicsConfig(width=16, batch_size=8), arrival=ArrivalConfig(width=16, batch_size=8),
        planner=planner, training=training)
    return gentraj.train(config, folder / "planner", progress=False)


@contextmanager
def started(command: Sequence[str], output: TextIO) -> Iterator[subprocess.Popen]:
    """A process that writes to `output`, and is killed where the block ends before it."""
    with subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def memory(pid: int | str = "self") -> int:
    """The resident memory of a process in bytes; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def children(pid: int | str = "self") -> list[int]:
    """The processes that a process has started, without theirs. None for one that has ended."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(word) for words in lists for word in words.split()]


class Meter(threading.Thread):
    """Measures, within a `with` block, the largest resident memory of a process, and of it and its children together.

    The latter counts memory that processes share more than once.
    """

    def __init__(self, pid: int | str = "self"):
        super().__init__(daemon=True)
        self.pid, self.own, self.peak, self.done = pid, 0, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            own = memory(self.pid)
            self.own = max(self.own, own)
            self.peak = max(self.peak, own + sum(memory(child) for child in children(self.pid)))

    def __enter__(self) -> Meter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


def mib(size: float) -> float:
    return round(size / 2**20, 1)
