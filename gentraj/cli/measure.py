"""`gentraj measure`: how close a planner's sampled trajectories are to data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import JsonObject, write_json
from ..files import check_output
from ..plots.page import markdown_table
from ..progress import print_saved, say
from ..runs.folder import RunFolder
from ..runs.measures import measure_run
from .options import Device, RunPath, load_trained, parse


@dataclass(frozen=True)
class Measure:
    """Measure how close the trajectories of a planner's model are to data. The number nearest to the column `data` is
    best.

    Windows of the data are split in two halves, and everything is compared with the first half. The column `data` is
    the second half, so a perfect model would score the same. The other columns are trajectories sampled from the model,
    as many as the windows of the second half and under their conditions.

    row_error: the simulator is set to a timestep of a plan and takes the plan's actions; the error is its distance from
    the plan at the next timestep. replay_error: the same, but the simulator takes all actions from the first timestep
    on. Both errors and smoothness use the entries of the observation that a goal has, if there are any.

    Examples: gentraj measure runs/demo --num 256
              gentraj measure runs/demo --dataset mine/held-out-v0 --out held-out.json
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    dataset: str | None = None
    """Take the windows from this dataset, such as held-out episodes; by default from the training data kept in the
    run."""
    num: int = 512
    """Number of trajectories in each column; it is lowered if there are fewer than twice as many windows."""
    steps: int | None = None
    """Number of sampling steps; by default the model's own."""
    seed: int = 0
    """Seed of the selection of windows and of the samples."""
    out: Path | None = None
    """The JSON file to write; by default RUN/measures.json."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Measure, argv, "gentraj measure")
    path = args.out or args.run / RunFolder.MEASURES
    run = load_trained(args.run, args.device)
    check_output(path, "--out")
    measured = measure_run(run, dataset=args.dataset, num=args.num, steps=args.steps, seed=args.seed)
    write_json(path, measured)
    say(f"measures in {path}")
    print_saved(table(measured))


def table(measured: JsonObject) -> str:
    """The measures as a table in Markdown with a column for the data and one for each condition."""
    columns = measured["measures"]
    rows = [(name, *(column[name] for column in columns.values()), unit) for name, unit in measured["units"].items()]
    return "\n".join([f"{measured['num']} trajectories a column, {measured['dataset']}, step {measured['step']}",
                      markdown_table(("", *columns, "unit"), rows),
                      *(f"no {name}: {why}" for name, why in measured["left_out"].items())])
