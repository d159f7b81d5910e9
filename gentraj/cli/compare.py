"""`gentraj compare`: families of models, trained and measured side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ..experiments.compare import CompareConfig, compare_families
from ..experiments.compare_page import tables
from ..plots.page import markdown_table
from ..progress import print_saved
from .jobs import JobsOptions
from .options import parse


@dataclass(frozen=True)
class Compare(CompareConfig):
    """Train families of models for the same time, and compare their stability, samples, speed, likelihood and control.

    Existing runs of any kind can be compared instead with --runs, such as a teacher and its students: the frontier
    shows what their decisions cost and what they are worth. The same command continues an interrupted comparison and
    measures nothing twice.

    Examples: gentraj compare pointmaze-umaze --families diffusion,flow --budget 5 --seeds 2
              gentraj compare pointmaze --dataset D4RL/pointmaze/medium-v2
              gentraj compare --runs runs/umaze@20 runs/umaze@5 runs/umaze-student
    """

    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = ()
    """Presets of planners, as in `gentraj train`; all families share the data, the planner and the training of a
    preset."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)


def main(argv: list[str]) -> None:
    args = parse(Compare, argv, "gentraj compare")
    comparison, page = compare_families(args, args.jobs.pool(args.out))
    for name, group in comparison.groups.items():
        table = tables(group, f"{name}, ")[0]
        print_saved(f"{table.title}\n\n{markdown_table(table.columns, table.rows)}\n")
    best = ", ".join(point.name for point in comparison.frontier if point.on_frontier)
    if best:
        print_saved(f"no other is cheaper and worth more, by {comparison.worth} and CPU time of a decision: {best}\n")
    print_saved(page)
