"""`gentraj data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from envs.making import environment_factory
from envs.recording.recipes import make_dataset
from envs.tasks.overview import table

from ..data import commands
from .options import registry

Id = Annotated[str, tyro.conf.Positional]


def list_() -> None:
    """The datasets on this machine, and those of the known tasks: what to make, to name or to download.

    Example: gentraj data list
    """
    rows = commands.list_datasets()
    for row in rows:
        size = f"{row['megabytes'] or 0:>8.1f} MB"
        print(f"{row['id']:40} {row['episodes']:>7,} episodes {row['steps']:>11,} steps {size}  {row['description']}")
    if not rows:
        print("no datasets yet; `gentraj data make pointmaze-umaze` records one")
    print("\nTasks; gentraj's own datasets are made by `gentraj data make`:")
    print("\n".join(map(str, table())))


def inspect(source: Id) -> None:
    """Shapes, ranges, episodes, returns, and every problem of a dataset; the exit code is 1 where there is one.

    Example: gentraj data inspect gentraj/pointmaze/umaze-v0

    Args:
        source: A Minari id, a D4RL id or a file.
    """
    said, has_problems = commands.inspect_source(source)
    print(said)
    if has_problems:
        raise SystemExit(1)


def import_(file: Annotated[Path, tyro.conf.Positional], id: str, env_id: str | None = None,
            overwrite: bool = False) -> None:
    """A file (.hdf5 of D4RL's layout; .npz of gentraj or OGBench) as a Minari dataset.

    Examples: gentraj data import maze2d-umaze.hdf5 --id mine/umaze-v0;
    gentraj data import ant.hdf5 --id mine/ant-v0 --env-id Ant-v5 --env-kwargs include_cfrc_ext_in_observation=False

    Args:
        file: The file.
        id: The dataset's new id, namespace/name-vN.
        env_id: The environment that made the data, where the file does not say: a Gymnasium id or a task name, with
            --env-kwargs KEY=VALUE its arguments. The dataset keeps it.
        overwrite: Replace a dataset of that id.
    """
    env = environment_factory(env_id).spec_json if env_id else None
    print(commands.import_file(file, id, env=env, overwrite=overwrite))


def make(task: Id, steps: int | None = None, seed: int = 0, id: str | None = None, train_steps: int | None = None,
         overwrite: bool = False) -> None:
    """Record data of a task: of a waypoint controller, of policies trained for it, or of scripted oracles.

    Examples: gentraj data make pointmaze-large --steps 1000000; gentraj data make ogbench/cube-single;
    gentraj data make mujoco/hopper-medium --train-steps 1000000

    Args:
        task: pointmaze-{open,umaze,medium,large}, mujoco/{hopper,walker2d,halfcheetah}-{medium,expert,mixed} or
            ogbench/{cube-single,scene,puzzle-3x3}.
        steps: Environment steps; by default the task's, enough to train on.
        seed: The same seed gives the same data.
        id: The dataset's id; the task's own by default, such as gentraj/pointmaze/large-v0.
        train_steps: Of the policies of mujoco/...; by default 1, 2 and 3 million.
        overwrite: Replace a dataset of that id.
    """
    print(make_dataset(task, steps, seed, id, train_steps=train_steps, overwrite=overwrite))


def main(argv: list[str]) -> None:
    commands_ = {"list": list_, "inspect": inspect, "import": import_, "make": make}
    tyro.extras.subcommand_cli_from_dict(commands_, args=argv, prog="gentraj data", registry=registry(),
                                         description="Offline datasets: what is here, what is in them, new ones.")
