"""The soak: what must hold for long, or many times over. `make soak` runs all of it.

    python -m benchmarks.soak                             all parts, two at a time, within about 40 minutes on two cores
    python -m benchmarks.soak kills --seed 3 --minutes 5  one part, with another seed and another bound
    python -m benchmarks.soak fuzzing                     all readers; fuzzing:npz is one of them

The figures are added to benchmarks/results/soak/cpu.json, and docs/soak.md is written from them. A part that loses
something ends in an AssertionError that says what, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..timing import machine
from .page import write_page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "soak" / "cpu.json"
FUZZED = ("npz", "hdf5", "config.json", "checkpoint", "reference.safetensors", "results", "command")
PARTS = {"kills": 10, "memory": 7, "long_data": 7, **{f"fuzzing:{reader}": 5 for reader in FUZZED}, "rollouts": 5,
         "killed_workers": 5, "flips": 4}
"""The parts: module, or module:argument -> minutes. Those that take longest come first."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="the bound of each part, in the place of its own")
    args = parser.parse_args()
    asked = args.parts or list(PARTS)
    named = {name: [part for part in PARTS if name in (part, part.partition(":")[0])] for name in asked}
    if unknown := [name for name in asked if not named[name]]:
        parser.error(f"unknown part {unknown[0]}; known: {', '.join(PARTS)}")
    if asked[0] in PARTS and len(asked) == 1:
        record(asked[0], args.seed, args.minutes)
        return 0
    return run_all([part for name in asked for part in named[name]], args.seed, args.minutes)


def record(name: str, seed: int, minutes: float | None) -> None:
    """Runs a part in this process and adds its figures to the results."""
    torch.set_num_threads(1)
    bound = PARTS[name] if minutes is None else minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        module, *argument = name.split(":")
        figures = import_module(f".{module}", __package__).run(seed, bound, Path(folder), *argument)
    about = machine(torch.device("cpu")) | {"cores": os.cpu_count(), "load": round(os.getloadavg()[2], 1)}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another part may end at the same time
        file.seek(0)
        results = json.loads(file.read() or "{}")
        results[name] = {"figures": figures, "seed": seed, "minutes": bound, "machine": about}
        results = {key: results[key] for key in PARTS if key in results}
        file.truncate(0)
        file.write(json.dumps(results, indent=1) + "\n")
        write_page(results, ROOT / "docs" / "soak.md")
    print(f"{name}: {json.dumps(figures)}")


def run_all(names: Sequence[str], seed: int, minutes: float | None) -> int:
    """Runs parts in processes of their own, two at a time. Returns 1 if one of them loses something."""
    bound = [] if minutes is None else ["--minutes", str(minutes)]

    def run_one(name: str) -> Any:
        command = [sys.executable, "-m", "benchmarks.soak", name, "--seed", str(seed), *bound]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"== {name}: exit code {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-4000:]}", flush=True)
        return done.returncode

    with ThreadPoolExecutor(2) as pool:
        return int(any([*pool.map(run_one, names)]))  # a list, as `any` would stop at the first and cancel the rest


if __name__ == "__main__":
    sys.exit(main())
