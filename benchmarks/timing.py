"""What the programs that measure speed share: cases, their times by turns, and the facts of the machine."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("gentraj", "torch", "numpy", "diffusers", "d3rlpy", "openvino")
FEWEST = 3  # rounds, however long they take
CPU = torch.device("cpu")

Call = Callable[[], Any]  # does the work once
Summary = dict[str, float]  # low (first quartile), median, high (third quartile)


class PeerMissing(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Setup:
    """How all cases are measured."""

    backends: tuple[str, ...] = ()
    """Backends of gentraj.accelerate beside eager."""
    diffuser: Path | None = None
    """A checkout of Diffuser."""
    device: torch.device = CPU


@dataclass(frozen=True)
class Case:
    """The same work of gentraj and of its peers. Nothing is built before the case is measured."""

    title: str
    """The work, for a table."""
    peers: Mapping[str, Callable[[Setup], Call]]
    """Peers by their names; one that raises PeerMissing is left out."""
    ours: Callable[[Setup], Mapping[str, Call]]
    """The variants of gentraj by the names of their backends, eager first."""


def clock(device: torch.device) -> float:
    """Seconds: CPU time of the process, in which a neighbour shows least; on another device wall time."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def by_turns(calls: Mapping[str, Call], rounds: int, seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each round, in which one call follows the other; the first round is not counted.

    There are at most `rounds` rounds, and no more once `seconds` have passed, but at least three.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.monotonic()
    for i in range(rounds + 1):
        if i > FEWEST and time.monotonic() - began > seconds:
            break
        for name, call in calls.items():
            start = clock(device)
            call()
            if i:
                times[name].append(clock(device) - start)
    return times


def summary(values: Sequence[float] | np.ndarray) -> Summary:
    """Median and quartiles, to four digits."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {name: float(f"{value:.4g}") for name, value in (("low", low), ("median", median), ("high", high))}


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, device, threads, versions of packages, date and commit."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {"cpu": _processor(), "capability": torch.backends.cpu.get_cpu_capability(), "device": str(device),
            "threads": torch.get_num_threads(), "python": platform.python_version(), "versions": found,
            "date": time.strftime("%Y-%m-%d"), "commit": _commit()}


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.processor() or platform.machine())


def _commit() -> str | None:
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True,
                         text=True, check=False)
    return git.stdout.strip() or None
