"""Files and arguments that are changed at random: what comes out is content, or one line of gentraj's own."""

from __future__ import annotations

import os
import resource
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, cast

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gentraj.process import end_with_parent

from .commands import Commands
from .material import Material, make
from .readers import Checkpoint, Config, Hdf5, Npz, Reader, Reference, Results

READERS: dict[str, type[Reader]] = {
    "npz": Npz, "hdf5": Hdf5, "config.json": Config, "checkpoint": Checkpoint, "reference.safetensors": Reference,
    "results": Results, "command": Commands}
IN_MEMORY = Path("/dev") / "shm"  # where it is; a changed file on a disk is waited for longer than it is read
ROUND = 25  # examples between two looks at the clock
made: list[Material] = []  # in a process that fuzzes, what it changes
MEMORY = 512  # MiB by which reading may raise the largest memory of the process


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Gives each reader its share of so many minutes of CPU time, in two processes.

    Raises AssertionError, with the smallest example that Hypothesis finds, for an error that is no refusal, for a hang,
    and for a reader that takes much memory; and BrokenProcessPool if a process dies.
    """
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else folder
    seconds = 60 * minutes / len(READERS)
    with TemporaryDirectory(prefix="soak-fuzzing-", dir=place) as own, \
            ProcessPoolExecutor(2, get_context("spawn"), prepare, (own,)) as pool:
        seeds = range(seed, seed + 1000 * len(READERS), 1000)
        figures = dict(zip(READERS, pool.map(fuzz, READERS, seeds, repeat(seconds)), strict=True))
    return {"readers": figures, "examples": sum(each["examples"] for each in figures.values()), "faults": 0}


def prepare(folder: str) -> None:
    """Makes the material of this process, which ends with the one that started it."""
    end_with_parent()
    torch.set_num_threads(1)
    (own := Path(folder) / str(os.getpid())).mkdir()
    made.append(make(own))
    os.environ["MINARI_DATASETS_PATH"] = str(made[0].datasets)
    (own / "card.json").write_bytes((Path(__file__).parents[1] / "cards" / "iql.json").read_bytes())


def fuzz(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """Fuzzes a reader for so many seconds of CPU time."""
    reader, outcomes, began, before = READERS[name](made[0]), Counter[str](), cpu_seconds(), largest_memory()
    rounds = 0
    while cpu_seconds() - began < seconds:
        outcomes += examples(reader, ROUND, seed + 100_000 * rounds)
        rounds += 1
    grown = largest_memory() - before
    assert grown < MEMORY, f"{name}: reading took {grown:.0f} MiB more than before"
    return {"examples": outcomes.total(), "refused": outcomes["refused"],
            "cpu_minutes": round((cpu_seconds() - began) / 60, 1), "memory_mib": round(grown)}


def examples(reader: Reader, number: int, seed: int | None = None) -> Counter[str]:
    """Tries so many random examples, always the same without a seed. Returns how many were read and refused."""
    outcomes = Counter[str]()

    @settings(max_examples=number, derandomize=seed is None, database=None, deadline=None,
              suppress_health_check=cast(Any, tuple(HealthCheck)), phases=(Phase.generate, Phase.shrink))
    @given(st.randoms(use_true_random=False))
    def try_one(random: Random) -> None:
        outcomes[reader.once(random)] += 1

    (try_one if seed is None else hypothesis.seed(seed)(try_one))()
    return outcomes


def cpu_seconds() -> float:
    """The CPU time of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def largest_memory() -> float:
    """The largest memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
