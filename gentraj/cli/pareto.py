"""`gentraj pareto`: what decisions of a teacher and of its students cost, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..config import write_json
from ..device import pick_device
from ..experiments.pareto import ParetoConfig, Point, pareto
from ..files import check_output
from ..plots.figures import plot_frontier
from ..plots.page import markdown_table, show
from ..progress import print_saved, say
from .options import Device, parse


@dataclass(frozen=True)
class Pareto:
    """Measure the return, the quality, the network calls and the latency of runs, and draw their frontier.

    RUN@STEPS is a run with another number of sampling steps. A latency is that of one decision for one environment.

    Examples: gentraj pareto runs/umaze@20 runs/umaze@5 runs/umaze-reflow
              gentraj pareto runs/umaze runs/umaze-reflow runs/umaze-decision --episodes 100 --out frontier.json
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folders of runs, such as a teacher and its students, each of them with @STEPS or without."""
    config: Annotated[ParetoConfig, tyro.conf.arg(name="")] = field(default_factory=ParetoConfig)
    out: Path = Path("pareto.json")
    """The JSON file to write; the figure is written next to it as a PNG file."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Pareto, argv, "gentraj pareto")
    check_output(args.out, "--out")
    if (figure := args.out.with_suffix(".png")) == args.out:
        raise ValueError(f"--out is {args.out}, which is the name of the figure; give a name that ends in .json")
    device = pick_device(args.device)
    found = pareto([Point.of(text, device) for text in args.runs], args.config)
    write_json(args.out, found)
    plot_frontier(found["points"], figure, found["worth"])
    print_saved(table(found))
    say(f"points in {args.out}, frontier in {figure}")


def table(found: dict[str, Any]) -> str:
    """The points as a table in Markdown; those on the frontier are marked."""
    head = ("run", "return", "success", "sliced Wasserstein", "calls", "latency p50, p99 (ms)", "CPU (ms)", "frontier")
    rows = [(row["name"], row["return_mean"], row["success_rate"], (row["quality"] or {}).get("sliced_wasserstein"),
             row["calls"], ", ".join(map(show, row["latency_ms"])), row["cpu_ms"], "yes" if row["frontier"] else "")
            for row in found["points"]]
    return "\n".join([markdown_table(head, rows), *(f"no {name}: {why}" for name, why in found["left_out"].items())])
