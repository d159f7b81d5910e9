"""`gentraj measure`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..device import pick_device
from ..files import write_file
from ..plots.page import show
from ..progress import say
from ..runs.folder import load
from ..runs.measures import measure_run
from .common import RunFolder, check_output
from .options import parse

MEASURES = "measures.json"


@dataclass(frozen=True)
class Measure:
    """Measure how good a planner's trajectories are, beside data: what is nearest to the column `data` is best.

    One half of the windows is what all else is compared with. The other half is the column `data`, and gives the
    conditions under which as many trajectories are sampled: a perfect model would score what it scores. row_error is
    how far the simulator, set to a row of a plan, is from the next one after the plan's actions, replay_error how far
    it is after all actions from the first row on; smoothness and these are of the goal's entries where there are any.

    Example: gentraj measure runs/demo --num 256
    """

    run: RunFolder
    """A run folder."""
    dataset: str | None = None
    """Windows of this dataset, such as held-out episodes; by default those of the training data that the run keeps."""
    num: int = 512
    """Trajectories to sample under each condition; fewer where there are not twice as many windows."""
    steps: int | None = None
    """Sampling steps; by default the model's own."""
    seed: int = 0
    """Seed of the choice of windows and of the samples."""
    out: Path | None = None
    """File to write; RUN/measures.json by default."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = parse(Measure, argv, "gentraj measure")
    path = args.out or args.run / MEASURES
    run = load(args.run, device=pick_device(args.device))
    check_output(path, "--out")
    measured = measure_run(run, dataset=args.dataset, num=args.num, steps=args.steps, seed=args.seed)
    write_file(path, json.dumps(measured, indent=2, allow_nan=False).encode())
    say(f"measures in {path}")
    print(table(measured))


def table(measured: dict[str, Any]) -> str:
    """The measures as text, a column for the data and for each condition."""
    columns = measured["measures"]
    lines = [f"{measured['num']} trajectories a column, {measured['dataset']}, step {measured['step']}",
             f"{'':22}" + "".join(f"{name:>16}" for name in columns) + "  unit"]
    for name, unit in measured["units"].items():
        lines.append(f"{name:22}" + "".join(f"{show(column[name]):>16}" for column in columns.values()) + f"  {unit}")
    return "\n".join([*lines, *(f"no {name}: {why}" for name, why in measured["left_out"].items())])
