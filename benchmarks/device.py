"""Measures all cases of `benchmarks.speed` on the GPU of this machine, for the table of docs/performance.md.

    python -m benchmarks.device

These are plans beside `diffusers` on the same GPU, decisions, training steps, updates and steps of many environments,
eager and by torch.compile, with the memory that they take. With --diffuser, plans stand beside Diffuser, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import speed
from gentraj.device import pick_device


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[str, ...] = ("*",)
    """Names of cases, with wildcards as in a shell; `python -m benchmarks.speed --list` prints them."""
    diffuser: Path | None = None
    """A checkout of github.com/jannerm/diffuser, which is imported from there."""
    out: Path = speed.ROOT / "benchmarks/results/speed/cuda.json"
    """A JSON file for the results."""
    table: Path | None = speed.ROOT / "docs/performance.md"
    """The page with the table; None leaves it as it is."""


def main(options: Options) -> None:
    device = pick_device(None)
    if device.type == "cpu":
        raise SystemExit("PyTorch finds no GPU here; `python -m benchmarks.speed` measures the CPU")
    speed.main(speed.Options(options.cases, diffuser=options.diffuser, device=str(device), out=options.out,
                             table=options.table))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
