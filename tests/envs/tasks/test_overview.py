"""The default horizons of plans, and the datasets that tasks record for themselves."""

import json
from dataclasses import replace

import pytest

from gentraj.data import load_episodes
from gentraj.envs.making import (
    HORIZONS,
    LONGEST_HORIZON,
    PLANNED_PER_CELL,
    UNKNOWN_HORIZON,
    default_horizon,
    environment_factory,
)
from gentraj.envs.recording import pointmaze
from gentraj.envs.recording.recipes import make_missing
from gentraj.envs.tasks.registry import MAZES, TASKS


def corridor(cells: int) -> str:
    """Returns the specification, as a dataset stores it, of a PointMaze with one straight path of `cells` cells."""
    wall, way = [1] * (cells + 2), [1, *[0] * cells, 1]
    return json.dumps({"id": "PointMaze_UMaze-v3", "max_episode_steps": 300, "kwargs": {"maze_map": [wall, way, wall]}})


@pytest.mark.parametrize("cells", [2, 3, 6, 9, 15, 30, 80, 200])
def test_the_longest_way_fits_and_a_short_maze_gets_a_short_dense_plan(cells: int) -> None:
    horizon, stride = default_horizon(corridor(cells))
    steps = PLANNED_PER_CELL * (cells - 1)
    assert (horizon - 1) * stride >= steps > (horizon - 1) * (stride - 1)  # no coarser than it must be
    shorter = [rows for rows in HORIZONS if rows < horizon]
    assert all(steps > (rows - 1) * HORIZONS[rows] for rows in shorter)  # with fewer rows it would not be dense
    assert horizon in (*HORIZONS, LONGEST_HORIZON) and stride <= HORIZONS.get(horizon, stride)


@pytest.mark.parametrize("name", MAZES)
def test_every_task_gets_a_plan_that_fits(name: str) -> None:
    factory = environment_factory(name)
    horizon, stride = default_horizon(name)
    assert (horizon, stride) == default_horizon(factory.spec_json) == MAZES[name].horizon
    assert (horizon - 1) * stride >= PLANNED_PER_CELL * factory.maze.longest_way


def test_other_environments_have_the_default_horizon() -> None:
    assert default_horizon(None) == default_horizon("Pendulum-v1") == UNKNOWN_HORIZON


def test_a_tasks_own_dataset_is_recorded_once_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gentraj/missing/open-v0"
    task = replace(TASKS["pointmaze-open"], recorded=(name,), recipe_steps=30)
    monkeypatch.setitem(TASKS, "pointmaze-open", task)
    assert make_missing(name, progress=False) == name
    assert load_episodes(name).num_steps == 30
    monkeypatch.setattr(pointmaze, "record", lambda *_, **__: pytest.fail("it was recorded again"))
    for there_or_anothers in (name, "D4RL/pointmaze/open-v2", "mine.npz", "gentraj/pointmaze/typo-v0"):
        assert make_missing(there_or_anothers) == there_or_anothers
