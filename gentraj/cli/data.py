"""`gentraj data`: list, inspect, import, export and record offline datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gentraj.envs.making import environment_factory
from gentraj.envs.recording.recipes import make_dataset
from gentraj.envs.tasks.registry import TASKS

from ..config import settings
from ..data import Episodes, sources
from ..data.minari_io import local_ids
from ..data.sources import DESCRIBED
from ..data.tables import is_table, read_table
from ..entries import entry_word
from ..progress import print_saved, say
from .options import Command, named

Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET", help=(
    f"The path or the name of a dataset: {DESCRIBED}; '+' joins several."))]
Files = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help=(
    f"Logs as CSV or Parquet, or other data: {DESCRIBED}; several are joined."))]
NewFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help=(
    "The file to write, whose name says how: .hdf5 in D4RL's layout, or .npz in gentraj's own."))]
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK", help=(
    "The task to record: one of pointmaze-{open,umaze,medium,large}, "
    "mujoco/{hopper,walker2d,halfcheetah}-{medium,expert,mixed}, "
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
        print("\n".join(f"{name}: {task}" for name, task in TASKS.items()))


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
    """Import logs, other files or other datasets as one dataset: a file (--out), or a dataset of Minari's (--id).

    Logs are tables as CSV or Parquet (extra tables), with a row for each time: an observation, the action that was
    taken on it and the reward for it. Say which columns these are; their names stay with the data.

    Examples: gentraj data import logs.csv --obs voltage current --act duty --reward r --episode run --out motor.npz
              gentraj data import maze2d-umaze.hdf5 --id mine/umaze-v0
              gentraj data import ant.hdf5 --id mine/ant-v0 --env-id Ant-v5 --env-kwargs ctrl_cost_weight=0.1
    """

    files: Files
    out: Path | None = None
    """The file to write, whose name ends in .npz or .hdf5, as for `gentraj data export`."""
    id: str | None = None
    """Instead of --out: the id of the new dataset of Minari's, namespace/name-vN."""
    obs: tuple[str, ...] = ()
    """Logs: the columns of an observation."""
    act: tuple[str, ...] = ()
    """Logs: the columns of an action."""
    reward: str | None = None
    """Logs: the column of the reward for the action in the same row; without it all rewards are 0."""
    episode: str | None = None
    """Logs: a column that tells episodes apart; without it a file is one episode, or as many as --terminated ends."""
    terminated: str | None = None
    """Logs: a column that is 1 where an episode ended for good, such as by a trip, and else 0."""
    time: str | None = None
    """Logs: a column of times, by which missing rows are found."""
    cut_gaps: bool = False
    """Logs: cut episodes where values or rows are missing; without it a gap is an error."""
    env_id: str | None = None
    """The environment of the data, if they do not name it; --env-kwargs KEY=VALUE are its arguments."""
    overwrite: bool = False
    """Replace an existing dataset with this --id."""

    def __call__(self) -> None:
        if self.out is not None and self.id is None:
            print_saved(sources.export_episodes(self._load, self.out, "--out"))
        elif self.id is not None and self.out is None:
            description = f"imported from {', '.join(Path(file).name for file in self.files)}"
            print_saved(sources.import_episodes(self._load, self.id, description, overwrite=self.overwrite))
        else:
            raise ValueError("give one of --out FILE.npz and --id NAMESPACE/NAME-vN, as which the data are written")

    def _load(self) -> Episodes:
        env = environment_factory(self.env_id).spec_json if self.env_id else None
        episodes = sources.load_episodes([self._read(file) for file in self.files])
        if any(map(is_table, self.files)) and (constant := _constant(episodes)):
            say(f"the same in all rows: {', '.join(constant)}")
        return replace(episodes, env=env or episodes.env)

    def _read(self, file: str) -> Episodes:
        columns = {"obs": self.obs, "act": self.act, "reward": self.reward, "episode": self.episode,
                   "terminated": self.terminated, "time": self.time, "cut_gaps": self.cut_gaps}
        if is_table(file):
            return read_table(file, **columns)
        if given := [named(key) for key, value in columns.items() if value]:
            raise ValueError(f"{', '.join(given)}: only of tables, and {file} is none; leave it out, or give a CSV or "
                             "Parquet file")
        return sources.load_episodes(sources.split_names(file))


def _constant(episodes: Episodes) -> list[str]:
    """The words for the entries of observations and actions that never change."""
    e = episodes
    return [entry_word(what, i, names) for what, x, names in (("observation", e.obs, e.obs_names),
                                                              ("action", e.act, e.act_names))
            for i in np.flatnonzero(np.ptp(x, axis=0) == 0).tolist()]


@settings
class Export(Command):
    """Write a dataset as a file for other programs. A line counts what its layout has no place for.

    Examples: gentraj data export gentraj/mujoco/hopper-medium-v0 hopper.hdf5
              gentraj data export medium.npz+expert.npz both.hdf5
    """

    source: Source
    file: NewFile

    def __call__(self) -> None:
        print_saved(sources.export_episodes(lambda: sources.load_episodes(sources.split_names(self.source)), self.file))


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
