"""`gentraj compare`: families of models, trained and measured side by side."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import tyro

from ..config import settings
from ..experiments.compare import CompareConfig, compare_families
from ..experiments.compare_page import measured, write_page
from ..experiments.page import score_table
from ..progress import print_saved
from .jobs import JobsOptions, pool_of
from .options import parse


@settings
class Compare(CompareConfig):
    """Train families of models for the same steps or minutes, and compare their samples, speed, likelihood and returns.

    Existing runs of any kind can be compared instead with --runs, such as a teacher and its students: the frontier
    shows what their decisions cost and what they are worth. The same command continues an interrupted comparison and
    measures nothing twice.

    Examples: gentraj compare pointmaze-umaze --families diffusion,flow --steps 4000 --seeds 2
              gentraj compare pointmaze-umaze --families diffusion,gan --minutes 6
              gentraj compare pointmaze --dataset D4RL/pointmaze/medium-v2
              gentraj compare --runs runs/umaze@20 runs/umaze@5 runs/umaze-student
    """

    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = ()
    """Presets of planners, as in `gentraj train`; all families share the data, the planner and the training of a
    preset."""
    jobs: Annotated[JobsOptions, tyro.conf.arg(name="")] = field(default_factory=JobsOptions)


def main(argv: list[str]) -> None:
    args = parse(Compare, argv, "gentraj compare")
    groups = compare_families(args, pool_of(args.jobs, args.out))
    for group in groups:
        table = group.table()
        if table is not None:
            print_saved(score_table(table))
        print_saved(f"\n{group.name}\n\n{measured(group)}\n")
    print_saved(write_page(groups, args.out, args.device))
