"""`gentraj data`: list, inspect, import, export and record offline datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from gentraj.envs.making import environment_factory
from gentraj.envs.recording.recipes import make_dataset
from gentraj.envs.tasks.registry import overview

from ..config import settings
from ..data import sources
from ..data.minari_io import local_ids
from ..data.sources import DESCRIBED
from ..progress import print_saved
from .options import Command

Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help=(
    f"The path or the name of a dataset: {DESCRIBED}; '+' joins several."))]
File = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help=(
    f"The dataset to import: {DESCRIBED}."))]
NewFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help=(
    "The file to write, whose name says how: .hdf5 in D4RL's layout, .h5 in d3rlpy's, or .npz in gentraj's own."))]
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK", help=(
    "One of pointmaze-{open,umaze,medium,large}, mujoco/{hopper,walker2d,halfcheetah}-{medium,expert,mixed}, "
    "ogbench/{cube-{single,double,triple,quadruple,octuple},scene,puzzle-{3x3,4x4,4x5,4x6}} and "
    "ogbench/{pointmaze,antmaze}-{medium,large,giant,teleport}-{navigate,stitch,explore}."))]


@settings
class List(Command):
    """List the datasets on this machine, and the tasks whose datasets can be recorded or downloaded.

    Example: gentraj data list
    """

    def __call__(self) -> None:
        datasets = local_ids()
        for key, row in datasets.items():
            episodes, steps = (_known(row.get(f"total_{what}"), ",") for what in ("episodes", "steps"))
            print(f"{key:40} {episodes:>7} episodes {steps:>11} steps {_known(row.get('dataset_size'), '.1f'):>8} MB  "
                  f"{' '.join(str(row.get('description', '')).split())}")
        if not datasets:
            print("no datasets yet; `gentraj data make pointmaze-umaze` records one")
        print("\nTasks; gentraj's own datasets are made by `gentraj data make`:")
        print("\n".join(f"{name}: {task}" for name, task in overview().items()))


def _known(number: object, form: str) -> str:
    """The number in this form, or "?" where the metadata of a dataset, which others may have written, have none."""
    return format(number, form) if isinstance(number, int | float) else "?"


@settings
class Inspect(Command):
    """Print the shapes, ranges, episodes and returns of a dataset and its problems; the exit code is 1 if it has any.

    Example: gentraj data inspect gentraj/pointmaze/umaze-v0
    """

    source: Source

    def __call__(self) -> None:
        summary, problems = sources.report(self.source)
        print(summary)
        if problems:
            raise SystemExit(1)


@settings
class Import(Command):
    """Import a file, or another dataset, as a Minari dataset.

    Examples: gentraj data import maze2d-umaze.hdf5 --id mine/umaze-v0
              gentraj data import ant.hdf5 --id mine/ant-v0 --env-id Ant-v5 --env-kwargs ctrl_cost_weight=0.1
    """

    file: File
    id: str
    """The id of the new dataset, namespace/name-vN."""
    env_id: str | None = None
    """The environment of the data, if the file does not name it; --env-kwargs KEY=VALUE are its arguments."""
    overwrite: bool = False
    """Replace an existing dataset with this id."""

    def __call__(self) -> None:
        env = environment_factory(self.env_id).spec_json if self.env_id else None
        print_saved(sources.import_file(self.file, self.id, env=env, overwrite=self.overwrite))


@settings
class Export(Command):
    """Write a dataset as a file for other programs. A line counts what its layout has no place for.

    Examples: gentraj data export gentraj/mujoco/hopper-medium-v0 hopper.hdf5
              gentraj data export medium.npz+expert.npz buffer.h5
    """

    source: Source
    file: NewFile

    def __call__(self) -> None:
        print_saved(sources.export_file(self.source, self.file))


@settings
class Make(Command):
    """Record a dataset of a task.

    The data come from a waypoint controller (pointmaze), from policies that are trained for the task first (mujoco), or
    from scripted oracles and noisy walkers (ogbench).

    Examples: gentraj data make pointmaze-large --steps 1000000
              gentraj data make ogbench/cube-single
              gentraj data make ogbench/pointmaze-giant-stitch
              gentraj data make mujoco/hopper-medium --train-steps 1000000
    """

    task: TaskName
    steps: int | None = None
    """Number of environment steps to record; the default of each task is enough to train on."""
    seed: int = 0
    """Seed; the same seed gives the same data."""
    id: str | None = None
    """The id of the dataset; by default the task's own, such as gentraj/pointmaze/large-v0."""
    train_steps: int | None = None
    """Training steps of the policies of mujoco/...: 1 (hopper), 2 (walker2d) or 3 million by default."""
    overwrite: bool = False
    """Replace an existing dataset with this id."""

    def __call__(self) -> None:
        print_saved(make_dataset(self.task, self.steps, self.seed, self.id, train_steps=self.train_steps,
                                 overwrite=self.overwrite))
