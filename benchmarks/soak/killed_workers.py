"""Workers of `gentraj evaluate` killed every 10 seconds: the scores are those of an evaluation in one process."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gentraj.runs.presets import POINTMAZE
from gentraj.training import TrainingConfig

from .small_run import children, started, trained_planner

EPISODES, WORKERS, ENVIRONMENTS = 200, 2, 4
PERIOD = 10.0  # seconds between two kills
STARTING = 2.5  # seconds of CPU time, after which a worker has started: else a busy machine would only start workers
COSTS = {"latency_ms_p50", "latency_ms_p99", "sha256"}  # what may differ


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Evaluates twice, however many `minutes` are given. Raises AssertionError where a score differs by a bit."""
    planner = replace(POINTMAZE.planner, replan=20, steps=1, arrival_thresholds=(1.0,))
    trained_planner(folder, seed, planner, TrainingConfig(200, save_every=200))
    start = time.perf_counter()
    expected, _ = evaluated(folder, seed, "alone.json", 0)
    middle = time.perf_counter()
    found, kills = evaluated(folder, seed, "killed.json", WORKERS)
    figures = {"episodes": found["episodes"], "kills": kills, "failures": len(found["failures"]),
               "alone_seconds": round(middle - start, 1), "killed_seconds": round(time.perf_counter() - middle, 1)}
    different = [key for key in expected if key not in COSTS and expected[key] != found.get(key)]
    assert not different, f"after {kills} kills, {', '.join(different)} differ from those without workers: {figures}"
    assert kills >= 2 and found["episodes"] == EPISODES, f"too few kills or episodes: {figures}"
    return figures


def evaluated(folder: Path, seed: int, name: str, workers: int) -> tuple[dict[str, Any], int]:
    """The scores, and the number of workers that were killed. Raises AssertionError where the command fails."""
    command = [sys.executable, "-m", "gentraj", "evaluate", str(folder / "planner"), "--episodes", str(EPISODES),
               "--num-envs", str(ENVIRONMENTS), "--seed", str(seed), "--workers", str(workers), "--no-baselines",
               "--out", str(folder / name)]
    rng, kills, last = np.random.default_rng(seed), 0, time.monotonic()
    with (folder / "output.txt").open("w+") as output:
        with started(command, output) as process:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - last < PERIOD:
                    continue
                if working := [pid for pid in children(process.pid) if is_worker(pid) and cpu_seconds(pid) > STARTING]:
                    with suppress(ProcessLookupError):
                        os.kill(working[rng.integers(len(working))], signal.SIGKILL)
                        kills, last = kills + 1, time.monotonic()
        output.seek(0)
        assert process.returncode == 0, (f"after {kills} kills, {' '.join(command)} ended with code "
                                         f"{process.returncode}: {output.read()}")
    return json.loads((folder / name).read_text()), kills


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used; 0 for one that has ended."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def is_worker(pid: int) -> bool:
    """Whether a child is a worker, and not the process that keeps the list of shared resources."""
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
