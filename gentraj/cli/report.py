"""`gentraj report`: one self-contained HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files import check_output
from ..progress import print_saved
from ..runs.folder import RunFolder
from ..runs.report import make_report
from .options import Device, RunPath, Step, load_trained, parse


@dataclass(frozen=True)
class Report:
    """Draw figures of a run and write them, with its scores and settings, as one self-contained HTML page.

    The figures show the loss, an episode as a GIF and the executed paths; for a planner also samples and plans, and
    for a world model its errors on held-out data.

    Examples: gentraj report runs/demo
              gentraj report runs/demo --seed 3 --out pages/demo.html
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    step: Step = None
    out: Path | None = None
    """The HTML file to write; by default RUN/report.html. The figures are written to a folder `figures` next to it."""
    seed: int = 0
    """Seed of the episodes and samples in the figures."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Report, argv, "gentraj report")
    check_output(args.out or args.run / RunFolder.REPORT, "--out")
    print_saved(make_report(load_trained(args.run, args.device, args.step), args.out, args.seed))
