"""A sweep of many small trials on Ray whose workers, and once the command itself, are killed at random.

    python -m benchmarks.sweep_kills --out runs/sweep-kills

The same sweep is done without kills first, and both tables are compared: every trial once, none lost, equal numbers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from gentraj.data import save_npz
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent

SPACE = ("policy.beta=0.5..20:log", "policy.expectile=0.6..0.95")
NARROW = ("policy.batch_size=8", "policy.critic.width=16")


@dataclass(frozen=True)
class Args:
    out: Path = Path("runs/sweep-kills")
    """A folder for the data and both sweeps."""
    trials: int = 200
    workers: int = 2
    every: float = 12.0
    """Mean number of results between two kills of a worker, which is exponentially distributed."""
    seed: int = 0


def main(args: Args) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "hopper.npz"
    if not data.is_file():
        record(data)
    tables = {}
    for name in ("whole", "killed"):
        words = [sys.executable, "-m", "gentraj", "sweep", "iql", "--dataset", str(data), "--run-dir",
                 str(args.out / name), "--search", "random", "--trials", str(args.trials), "--steps", "2", "--episodes",
                 "1", "--ray", "--jobs", str(args.workers), "--over", *SPACE, *NARROW]
        began = time.monotonic()
        workers, drivers = played(words, args.out / f"{name}.log", args if name == "killed" else None)
        tables[name] = read(args.out / name)
        log = (args.out / f"{name}.log").read_text()
        started = len(list((args.out / name).glob("seed-*/trial-*.json")))
        print(f"{name}: {started} results, {len(tables[name])} rows, {workers} workers and {drivers} commands killed, "
              f"{log.count('; attempt ')} attempts repeated, {time.monotonic() - began:.0f} s", flush=True)
    if tables["whole"] != tables["killed"]:
        raise SystemExit("the tables differ")
    print("the tables are equal")


def record(path: Path) -> None:
    """Stores episodes of random actions in Hopper."""
    factory = environment_factory("Hopper-v5")
    space = factory().action_space
    played = rollout(RandomAgent(space.low, space.high), factory, 12, num_envs=6, record=True, progress=False)
    assert played.recorded is not None
    save_npz(played.recorded, path)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a sweep without the folders of their runs."""
    rows = json.loads((folder / "sweep.json").read_text())["rows"]
    assert all(row["mean"] is not None for row in rows)
    return [{key: value for key, value in row.items() if key != "runs"} for row in rows]


def played(words: list[str], log: Path, args: Args | None) -> tuple[int, int]:
    """Runs the command until it has ended by itself; returns how many of its workers, and how often it, were killed.

    With `args` it is killed once, when half of the trials are done, and then called again.
    """
    rng, killed, drivers = np.random.default_rng(args.seed if args else 0), 0, 0
    due = rng.exponential(args.every) if args else np.inf
    while True:
        with log.open("a") as file, subprocess.Popen(words, stdout=file, stderr=file) as driver:
            while driver.poll() is None:
                time.sleep(0.1)
                done = log.read_text().count("return_mean ")
                if args and not drivers and done >= args.trials // 2:
                    driver.kill()
                    drivers += 1
                if args and done >= due and (workers := working(driver.pid)):
                    os.kill(workers[rng.integers(len(workers))], signal.SIGKILL)
                    killed, due = killed + 1, due + rng.exponential(args.every)
        if driver.returncode != -signal.SIGKILL:
            assert driver.returncode == 0, f"exit code {driver.returncode}; see {log}"
            return killed, drivers


def working(driver: int) -> list[int]:
    """The processes that do jobs of the command: those of its raylet, with the name of the task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, parent = (folder / "cmdline").read_text(), parent_of(folder)
            if name.startswith("ray::_work") and parent_of(Path("/proc") / str(parent)) == driver:
                found.append(int(folder.name))
        except OSError:  # has ended meanwhile
            continue
    return found


def parent_of(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    main(tyro.cli(Args))
