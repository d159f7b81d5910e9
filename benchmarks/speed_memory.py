"""The memory that planning adds to a process that has imported gentraj. Each size is measured in a process of its own.

    python -m benchmarks.speed_memory --backend openvino --candidates 64

prints MiB after the imports, with the planner, and the most while it plans.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.speed_cases import HOPPER, planner
from benchmarks.speed_growth import exponents
from benchmarks.timing import ROOT

STATUS = Path("/proc/self/status")
GROWTH = {"horizon": (32, 128, 512, 2048), "candidates": (1, 16, 64, 256), "environments": (1, 16, 64, 256)}


@dataclass(frozen=True)
class Options:
    """One planner, and the number of its decisions."""

    backend: str = "eager"
    horizon: int = HOPPER.horizon
    candidates: int = 1
    environments: int = 1
    decisions: int = 5


def mib(key: str) -> float:
    """A number of the process: VmRSS, the memory in use, or VmHWM, the most so far.

    Raises ValueError where the system does not say.
    """
    if not STATUS.exists():
        raise ValueError(f"memory is read from {STATUS}, which this system does not have; leave --memory out")
    return int(re.findall(rf"{key}:\s+(\d+)", STATUS.read_text())[0]) / 1024


def main(options: Options) -> None:
    torch.set_num_threads(1)
    imported = mib("VmRSS")
    agent = planner(options.horizon, options.candidates, options.backend)
    built = mib("VmRSS")
    for _ in range(options.decisions):
        agent.act(torch.zeros(options.environments, HOPPER.obs_dim))
    found = {"imports": imported, "planner": built - imported, "planning": mib("VmHWM") - imported}
    print(json.dumps({key: round(value, 1) for key, value in found.items()}))


def child(**options: Any) -> dict[str, float]:
    """What a new process with these options prints."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run([sys.executable, "-m", "benchmarks.speed_memory", *words], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(backends: tuple[str, ...]) -> Mapping[str, Any]:
    """MiB of one plan at a time in each backend, and the growth of what eager planning adds."""
    growth = {}
    for kind, sizes in GROWTH.items():
        added = [child(**{kind: size})["planning"] for size in sizes]
        growth[kind] = {"sizes": sizes, "mib": added, "exponents": exponents(sizes, added)}
    return {"backends": {name: child(backend=name) for name in ("eager", *backends)}, "growth": growth}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
