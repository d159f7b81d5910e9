"""Files and arguments that are changed at random: what comes out is content, or one line of gentraj's own."""

from __future__ import annotations

import os
import resource
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, cast

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .commands import Commands
from .material import make
from .readers import Checkpoint, Config, Hdf5, Npz, Reader, Reference, Results

READERS: dict[str, type[Reader]] = {
    "npz": Npz, "hdf5": Hdf5, "config.json": Config, "checkpoint": Checkpoint, "reference.safetensors": Reference,
    "results": Results, "command": Commands}
IN_MEMORY = Path("/dev") / "shm"  # where it is; a changed file on a disk is waited for longer than it is read
CARDS = Path(__file__).parents[1] / "cards"
ROUND = 25  # examples between two looks at the clock
MEMORY = 512  # MiB by which reading may raise the largest memory of the process


def run(seed: int, minutes: float, folder: Path, name: str) -> dict[str, Any]:
    """Fuzzes a reader for so many minutes of CPU time.

    Raises AssertionError, with the smallest example that Hypothesis finds, for an error that is no refusal, for a hang,
    and if the reader takes much memory.
    """
    with TemporaryDirectory(prefix="soak-fuzzing-", dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else folder) as own:
        (files := Path(own, "files")).mkdir()
        os.environ["MINARI_DATASETS_PATH"] = str((material := make(files)).datasets)
        (material.folder / "card.json").write_bytes((CARDS / "iql.json").read_bytes())
        reader, outcomes, began, before = READERS[name](material), Counter[str](), cpu_seconds(), largest_memory()
        rounds = 0
        while cpu_seconds() - began < 60 * minutes:
            outcomes += examples(reader, ROUND, seed + 100_000 * rounds)
            rounds += 1
    grown = largest_memory() - before
    assert grown < MEMORY, f"{name}: reading took {grown:.0f} MiB more than before"
    return {"examples": outcomes.total(), "refused": outcomes["refused"], "faults": 0,
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
