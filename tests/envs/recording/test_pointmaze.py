"""Recordings are what the environment itself would have given, and the controller solves any maze."""

import json

import numpy as np
import pytest

from gentraj.data import DataError, load_episodes, stitch
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import WaypointController
from gentraj.envs.recording.pointmaze import RECORDING, PointMazes, record
from gentraj.envs.recording.recipes import make_dataset
from gentraj.envs.tasks.maze import Maze
from gentraj.randomness import fold, for_choosing, for_recording

MAPS = {
    "spiral": ["#######", "#.....#", "#####.#", "#...#.#", "#.###.#", "#.....#", "#######"],
    "starts and goals": ["######", "#r..c#", "#.##.#", "#g...#", "######"],
    "no border": ["..", ".#"],
}


def custom(name):
    cells = {"#": 1, ".": 0}
    maze_map = [[cells.get(cell, cell) for cell in row] for row in MAPS[name]]
    return environment_factory("PointMaze_UMaze-v3", {"maze_map": maze_map, "max_episode_steps": 400})


def test_stepping_together_equals_stepping_the_environments():
    """States, observed goals and rewards are equal bit for bit, with clipped speeds and changing goals."""
    factory, seeds = environment_factory("pointmaze-open", RECORDING), [5, 6]
    runs, envs = PointMazes(factory, seeds), [factory() for _ in seeds]
    for env, seed in zip(envs, seeds, strict=True):
        env.reset(seed=seed)
    act = np.repeat(np.random.default_rng(0).uniform(-1, 1, (12, 2, 2)), 50, 0).astype(np.float32)
    goals, fastest = set(), 0.0
    for act_BA in act:
        reward = runs.step(act_BA)
        for i, env in enumerate(envs):
            obs, theirs, *_ = env.step(act_BA[i])
            assert (obs["observation"] == runs.state[i]).all()
            assert (obs["desired_goal"] == runs.shown_goal[i]).all()
            assert reward[i] == theirs
            goals.add(tuple(obs["desired_goal"]))
            fastest = max(fastest, np.abs(obs["observation"][2:]).max())
    assert len(goals) > 2 and fastest > 5


def test_a_recording_replays_in_its_own_environment():
    episodes = record("pointmaze-umaze", 300, seed=2, progress=False)
    env = environment_factory(episodes.env, RECORDING)()
    obs, _ = env.reset(seed=fold(2, 0))
    for t, act in enumerate(episodes.act):
        assert (obs["observation"].astype(np.float32) == episodes.obs[t]).all()
        assert (obs["desired_goal"].astype(np.float32) == episodes.extras["goal"][t]).all()
        obs, reward, *_ = env.step(act)
        assert reward == episodes.reward[t]
    assert len(np.unique(episodes.extras["goal"], axis=0)) > 2
    assert (episodes.goal_dims, episodes.obs_keys) == ((0, 1), ("observation",))
    assert set(episodes.extras) == {"goal"}  # the observation is qpos and qvel already


def test_a_recording_depends_on_its_seed_and_longer_ones_begin_alike(monkeypatch):
    monkeypatch.setattr("gentraj.envs.recording.pointmaze.RUN_STEPS", 40)
    short, long, other = (record("pointmaze-umaze", n, seed, progress=False) for n, seed in ((40, 0), (90, 0), (40, 1)))
    assert long.lengths.tolist() == [40, 40, 10] and long.truncated.nonzero()[0].tolist() == [39, 79, 89]
    assert (long[0].obs == short.obs).all() and (long[0].act == short.act).all()
    assert (long[1].obs[0] != long[0].obs[0]).any() and (other.obs[0] != short.obs[0]).any()
    assert len(stitch(long)) == 3


@pytest.mark.parametrize("name", MAPS)
def test_the_controller_reaches_and_holds_every_goal_of_any_map(name):
    factory = custom(name)
    played = rollout(WaypointController(factory.maze), factory, 4, settings=RolloutSettings(num_envs=4), progress=False)
    assert played.success.all()
    assert (played.time_at_goal == 400 - played.first_hit + 1).all()


def test_the_controller_replans_when_it_has_left_its_path():
    maze = Maze(environment_factory("pointmaze-umaze").kwargs["maze_map"])
    controller, goal = WaypointController(maze), maze.centre(np.array([maze.number(3, 1)]))
    at = lambda row, column: np.hstack([maze.centre(maze.number(row, column)), 0, 0])[None]  # noqa: E731
    controller.reset(seed=0)
    controller.control(at(1, 1), goal)
    assert maze.cell(controller.waypoint_BG + 0.1) == maze.number(1, 2)
    controller.control(at(3, 3), goal)
    assert maze.cell(controller.waypoint_BG + 0.1) == maze.number(3, 2)


def test_a_dataset_is_made_under_the_tasks_id_and_never_over_another():
    dataset_id = make_dataset("pointmaze-open", 60, progress=False)
    assert dataset_id == "gentraj/pointmaze/open-v0"
    loaded, recorded = load_episodes(dataset_id), record("pointmaze-open", 60, for_recording(0), progress=False)
    assert (loaded.obs == recorded.obs).all() and (loaded.extras["goal"] == recorded.extras["goal"]).all()
    assert environment_factory(loaded.env) == environment_factory("pointmaze-open")
    with pytest.raises(DataError, match="exists already"):
        make_dataset("pointmaze-open", 10**12)
    make_dataset("pointmaze-open", 30, overwrite=True, progress=False)
    assert load_episodes(dataset_id).num_steps == 30


def test_no_recorded_run_begins_as_an_episode_in_which_agents_are_scored(monkeypatch):
    """Run i of a recording was evaluation episode i: a planner was scored by starts and goals that its data solve."""
    monkeypatch.setattr("gentraj.envs.recording.pointmaze.RUN_STEPS", 2)
    dataset_id = make_dataset("pointmaze-umaze", 40, dataset_id="mine/maze-v0", progress=False)
    recorded = {(*each.obs[0], *each.extras["goal"][0]) for each in load_episodes(dataset_id)}
    env = environment_factory("pointmaze-umaze")()
    for seed in (fold(root, i) for root in (0, for_choosing(0)) for i in range(20)):
        obs, _ = env.reset(seed=seed)
        assert (*obs["observation"].astype(np.float32), *obs["desired_goal"].astype(np.float32)) not in recorded
    assert len(recorded) == 20


@pytest.mark.parametrize(("way", "message"), [([1, 0, 0, 1, 0, 1], "goals that no path leads to"),
                                              ([1, "r", 0, "g", 0, 1], "has a single goal")])
def test_a_map_on_which_the_controller_would_stand_still_is_refused(way: list, message: str) -> None:
    env = json.dumps({"id": "PointMaze_UMaze-v3", "kwargs": {"maze_map": [[1] * 6, way, [1] * 6]}})
    with pytest.raises(ValueError, match=message):
        record(env, 5, progress=False)
