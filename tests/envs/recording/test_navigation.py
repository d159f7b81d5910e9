"""Navigation in OGBench's mazes is recorded by OGBench's rules."""

import numpy as np
import pytest

from gentraj.envs.recording import navigation
from gentraj.envs.recording.recipes import recipes
from gentraj.envs.recording.walker import Walker
from gentraj.envs.tasks.ogbench_envs import grid_of, make_base
from gentraj.randomness import seeded

pytest.importorskip("ogbench")


@pytest.fixture(scope="module")
def grid():
    return grid_of(make_base("pointmaze-medium-v0"))


def record(kind, steps, monkeypatch, seed=0):
    monkeypatch.setattr(navigation, "SIDE_BY_SIDE", 3)
    return navigation.record(f"ogbench/pointmaze-medium-{kind}", steps, seed, progress=False)


def cells_on_the_way(grid, episode):
    return grid.path_lengths[grid.cell(episode.obs[0]), grid.cell(episode.obs[-1])]


def test_stitch_goes_to_cells_at_most_four_away(grid, monkeypatch):
    episodes = record("stitch", 1600, monkeypatch)
    assert len(episodes) == 8 and (episodes.lengths == 200).all() and episodes.truncated.sum() == 8
    ways = [cells_on_the_way(grid, episode) for episode in episodes]
    assert max(ways) == 4 and np.mean(np.array(ways) >= 3) > 0.7
    assert grid.is_free(episodes.obs).all()


def test_a_longer_recording_begins_like_a_shorter_one(monkeypatch):
    short, long = (record("explore", steps, monkeypatch, seed=4) for steps in (500, 2000))
    assert len(short) == 1 and len(long) == 4
    assert short == long[0]


def test_navigate_goes_from_goal_to_goal(grid, monkeypatch):
    episode = record("navigate", 1000, monkeypatch)[0]
    assert len(np.unique(grid.cell(episode.obs))) > 8
    assert episode.goal_dims == (0, 1) and "pointmaze-medium-v0" in episode.env


@pytest.mark.parametrize("maze", ["giant", "teleport"])
def test_a_point_is_recorded_in_every_maze(maze, monkeypatch):
    monkeypatch.setattr(navigation, "SIDE_BY_SIDE", 1)
    episodes = navigation.record(f"ogbench/pointmaze-{maze}-stitch", 200, progress=False)
    assert episodes.obs.shape == (201, 2)


def test_crossings_are_the_cells_that_are_not_in_a_corridor(grid):
    around = [sum(grid.free[r + i, c + j] for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0)))
              for r, c in map(lambda cell: divmod(cell, grid.free.shape[1]), navigation.crossings(grid))]
    assert {1, 3} <= set(around)  # dead ends and forks
    assert len(navigation.crossings(grid)) < len(grid.cells)


def test_each_kind_in_each_maze_is_a_recipe():
    assert {f"ogbench/{robot}-{maze}-{kind}" for robot in ("pointmaze", "antmaze")
            for maze in ("medium", "large", "giant", "teleport") for kind in navigation.EPISODE_STEPS} <= set(recipes())


def test_the_ant_walks_in_the_direction_that_it_is_given():
    base = make_base("antmaze-medium-v0")
    with seeded(0):
        obs, _ = base.reset(seed=0, options={"task_info": {"init_ij": (1, 1), "goal_ij": (1, 2)}})
    start, walker = base.get_xy(), Walker()
    for _ in range(40):
        act = walker.act(obs[None], np.array([[1.0, 0.0]]))[0]
        obs, *_ = base.step(act)
    along = base.get_xy() - start
    assert (np.abs(act) <= 1).all() and along[0] > 3 and abs(along[1]) < 2
