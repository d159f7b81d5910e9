"""The data that a run is trained on, read by the names in its settings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.making import with_whole_goals
from gentraj.envs.recording.recipes import make_missing

from ...data import Episodes, concatenate, episodes_hash, load_episodes
from ...data.goals import without_goals
from ...data.sources import resolve_paths, split_names
from ...data.splitting import stitch
from .run import Run, RunConfig, Split


def read_datasets(config: RunConfig, *, record: bool = True) -> tuple[Episodes, list[DataReturns]]:
    """The data that a run is trained on, and the returns of the recorded episodes of each of its datasets.

    The dataset of a task is recorded if it is missing, unless `record` is false.
    """
    return join(config, [load_episodes(make_missing(name) if record else name) for name in split_names(config.dataset)])


def join(config: RunConfig, datasets: Sequence[Episodes]) -> tuple[Episodes, list[DataReturns]]:
    """The datasets as a run is trained on them, and the returns of the recorded episodes of each.

    Only the critic of a policy learns from synthetic steps, which a world model imagined; for other runs they are left
    out, with a warning.
    """
    real = [dataset.real() for dataset in datasets]
    joined = concatenate(datasets if config.learns_from_synthetic else real)
    if lost := sum(dataset.num_steps for dataset in datasets) - joined.num_steps:
        warnings.warn(f"{joined.name}: {lost} steps that a world model imagined are left out; only the critics of "
                      "policies learn from them", stacklevel=2)
    if config.stitch:
        joined = stitch(joined)
    if config.whole_goals:
        joined = with_goals_that_are_whole(joined)
    return joined, list(map(DataReturns.of, real))


def with_goals_that_are_whole(episodes: Episodes) -> Episodes:
    """The same episodes and their environment with goals that are whole observations. Raises ValueError for an
    environment that gives no such goals."""
    env = None if episodes.env is None else with_whole_goals(episodes.env)
    return replace(without_goals(episodes), goal_dims=tuple(range(episodes.obs_dim)), env=env, validate=False)


def read_data(config: RunConfig, folder: Path = Path(), *, record: bool = True) -> Episodes:
    """The data that a run in `folder` is trained on, as one; see `read_datasets`."""
    return read_datasets(replace(config, dataset=resolve_paths(config.dataset, folder)), record=record)[0]


def data_of(run: Run) -> Split:
    """The episodes that a run was trained on, and those that were held out. Raises ValueError for a dataset that was
    changed since."""
    parts = run.split(run.config, read_data(run.config, run.folder))
    if episodes_hash(parts.train) != run.dataset_hash:
        raise ValueError(f"{run.config.dataset} is not what {run.folder} was trained on; its dataset is expected")
    return parts
