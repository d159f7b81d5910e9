"""`gentraj data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from envs.pointmaze import make_dataset
from envs.tasks import find_task

from ..data import commands

Id = Annotated[str, tyro.conf.Positional]


def list_() -> None:
    """The datasets on this machine.

    Example: gentraj data list
    """
    rows = commands.list_datasets()
    for row in rows:
        size = f"{row['megabytes'] or 0:>8.1f} MB"
        print(f"{row['id']:40} {row['episodes']:>7,} episodes {row['steps']:>11,} steps {size}  {row['description']}")
    if not rows:
        print("no datasets yet; `gentraj data make pointmaze-umaze` records one")


def inspect(source: Id) -> None:
    """Shapes, ranges, episodes, returns, and every problem of a dataset.

    Example: gentraj data inspect gentraj/pointmaze/umaze-v0

    Args:
        source: A Minari id, a D4RL id or a file.
    """
    print(commands.inspect_source(source))


def import_(file: Annotated[Path, tyro.conf.Positional], id: str, overwrite: bool = False) -> None:
    """A file (.hdf5 of D4RL's layout; .npz of gentraj or OGBench) as a Minari dataset.

    Example: gentraj data import maze2d-umaze.hdf5 --id mine/umaze-v0

    Args:
        file: The file.
        id: The dataset's new id, namespace/name-vN.
        overwrite: Replace a dataset of that id.
    """
    print(commands.import_file(file, id, overwrite=overwrite))


def make(task: Id, steps: int | None = None, seed: int = 0, id: str | None = None, overwrite: bool = False) -> None:
    """Record the public waypoint-controller recipe as a Minari dataset.

    Example: gentraj data make pointmaze-large --steps 1000000

    Args:
        task: pointmaze-open, pointmaze-umaze, pointmaze-medium or pointmaze-large.
        steps: Environment steps; by default 100,000, and a million for the two larger mazes.
        seed: The same seed gives the same data.
        id: The dataset's id; gentraj/pointmaze/...-v0 by default.
        overwrite: Replace a dataset of that id.
    """
    steps = find_task(task).recipe_steps if steps is None else steps
    print(make_dataset(task, steps, seed, id, overwrite=overwrite))


def main(argv: list[str]) -> None:
    commands_ = {"list": list_, "inspect": inspect, "import": import_, "make": make}
    tyro.extras.subcommand_cli_from_dict(commands_, args=argv, prog="gentraj data",
                                         description="Offline datasets: what is here, what is in them, new ones.")
