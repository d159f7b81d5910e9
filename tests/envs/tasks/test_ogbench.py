"""OGBench: goals are entries of the observation, and episodes and recordings depend on the seed only."""

from functools import cache

import gymnasium
import numpy as np
import pytest

import gentraj
from gentraj import load_episodes
from gentraj.data import DataError, Episodes
from gentraj.data.ogbench import ogbench_tasks, relabel
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory, with_whole_goals
from gentraj.envs.recording import oracles
from gentraj.envs.tasks import ogbench_envs
from gentraj.envs.tasks.ogbench_envs import grid_of, make_base
from gentraj.envs.tasks.registry import OGBENCH

pytest.importorskip("ogbench")
CUBE = "ogbench/cube-single"


@pytest.fixture(scope="module")
def bases():
    """OGBench's own environments, of which MuJoCo compiles each once, which takes a second: episodes depend on their
    seed only, whatever was played before."""
    return cache(make_base)


@pytest.fixture
def compiled(bases, monkeypatch):
    for module in (ogbench_envs, oracles):
        monkeypatch.setattr(module, "make_base", bases)


@pytest.fixture(scope="module", params=["cube-single", "scene", "puzzle-3x3", "antmaze-teleport",
                                        "humanoidmaze-medium", "antsoccer-arena"])
def reaching(request, bases):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ogbench_envs, "make_base", bases)
        env = environment_factory(f"ogbench/{request.param}")()
    yield OGBENCH[f"ogbench/{request.param}"], env
    env.close()


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_a_goal_consists_of_entries_of_the_observation(reaching):
    task, env = reaching
    obs, info = env.reset(seed=1)
    assert (obs["achieved_goal"] == obs["observation"][list(task.goal_dims)]).all() and not info["success"]
    assert obs["desired_goal"].shape == obs["achieved_goal"].shape != (0,)
    assert env.observation_space.contains(obs) and env.spec.max_episode_steps == task.max_episode_steps


def test_a_maze_has_the_cells_of_ogbenchs_map_where_ogbench_has_them(reaching):
    _, env = reaching
    base = env.unwrapped.base
    if not hasattr(base, "maze_map"):
        assert environment_factory(env.spec.id).maze is None
        return
    maze = env.unwrapped.maze
    centre_M2 = np.array([base.ij_to_xy(ij) for ij in np.argwhere(base.maze_map == 0)])
    assert sorted(maze.centre(maze.cells).tolist()) == sorted(centre_M2.tolist())
    assert (len(maze.entrances), len(maze.exits)) == ((2, 3) if "teleport" in env.spec.id else (0, 0))


def test_the_walls_of_a_maze_are_known_by_the_name_of_its_data(compiled):
    single = environment_factory("OGBench/pointmaze-medium-singletask-v0")
    for factory in (environment_factory("ogbench/pointmaze-medium"), single):
        assert factory.maze.free.sum() == 26 and factory.maze.is_free(np.zeros(2))


def test_an_episode_is_a_function_of_its_seed(reaching):
    _, env = reaching
    act = np.random.default_rng(0).uniform(-1, 1, (8, *env.action_space.shape)).astype(np.float32)

    def episode(seed):
        first, info = env.reset(seed=seed)
        return info["task_id"], [first, *(env.step(a)[0] for a in act)]

    task_id, before = episode(3)
    episode(4)  # leaves nothing behind
    again_id, after = episode(3)
    assert task_id == again_id and all(map(equal, before, after))


def test_the_goal_is_ogbenchs_own_oracle_representation(reaching):
    _, env = reaching
    obs, _ = env.reset(seed=2)
    base = env.unwrapped.base
    if "maze" in env.spec.id or "soccer" in env.spec.id:
        assert (obs["desired_goal"] == base.get_oracle_rep()).all()
    else:
        assert np.allclose(obs["achieved_goal"], base.compute_oracle_observation(), atol=1e-6)


@pytest.mark.parametrize("name", ["cube-single", "antmaze-teleport", "antsoccer-arena"])
def test_a_whole_goal_is_an_observation_of_ogbench_with_the_parts_at_their_goal(name, compiled):
    """As OGBench gives it without its oracle representation, so that scores are in its published league."""
    env = environment_factory(with_whole_goals(OGBENCH[f"ogbench/{name}"].env_id))()
    parts = list(OGBENCH[f"ogbench/{name}"].goal_dims)
    seen, info = env.reset(seed=3)
    assert env.observation_space.contains(seen) and seen["achieved_goal"].tolist() == seen["observation"].tolist()
    oracle, own = environment_factory(f"ogbench/{name}")().reset(seed=3)
    assert info == own and np.allclose(seen["observation"], oracle["observation"])
    assert np.allclose(seen["desired_goal"][parts], oracle["desired_goal"], atol=1e-6)
    base = env.unwrapped.base
    _, info = base.reset(seed=0, options={"task_id": info["task_id"]})
    assert len(info["goal"]) == len(seen["desired_goal"]) > len(parts)
    if "maze" in name or "soccer" in name:
        env.unwrapped.move(np.zeros(2), seen["desired_goal"])
        assert np.allclose(base.cur_goal_xy, oracle["desired_goal"])


def test_a_run_whose_goals_are_whole_observations_is_given_such_goals(compiled, tmp_path):
    space = environment_factory("ogbench/antmaze-teleport").spec_json
    rng, never = np.random.default_rng(0), np.zeros(8, bool)
    data = Episodes(rng.normal(0, 99, (10, 29)), rng.uniform(-1, 1, (8, 8)), np.zeros(8), never, never,
                    np.array([4, 4]), goal_dims=(0, 1), obs_keys=("observation",), env=space)
    run = gentraj.train("gcbc", data, settings={"context.goals.whole": True}, steps=1, folder=tmp_path, progress=False)
    assert run.data.goal_dims == tuple(range(29)) and gentraj.load(tmp_path).data == run.data
    env = environment_factory(run.data.env, {"max_episode_steps": 2})
    settings = RolloutSettings(obs_keys=run.data.obs_keys, goal_dims=run.data.goal_dims)
    played = rollout(run.agent(run.action_space()), env, 1, settings=settings, record=True, progress=False).recorded
    assert played.extras["goal"].shape == (3, 29)


def test_only_ogbench_gives_whole_goals():
    with pytest.raises(ValueError, match="PointMaze_UMaze-v3 gives no whole observations"):
        with_whole_goals("PointMaze_UMaze-v3")


def test_a_maze_ends_at_its_goal_and_teleports_by_the_seed(bases, monkeypatch):
    monkeypatch.setattr(ogbench_envs, "make_base", bases)
    env = environment_factory("ogbench/pointmaze-teleport")()
    base = env.unwrapped.base

    def after(seed, place):
        env.reset(seed=seed)
        base.set_xy(place)
        return env.step(np.zeros(2, np.float32))

    exits = []
    for seed in (*range(12), 0):
        after(seed, base._teleport_info["teleport_in_xys"][0])
        exits.append(tuple(base.get_xy()))
    assert exits[0] == exits[-1] and len(set(exits)) == 3
    env.reset(seed=1)
    _, reward, terminated, truncated, info = after(1, base.cur_goal_xy)
    assert reward == 1 and terminated and not truncated and info["success"]


def test_a_detour_leaves_a_way_and_ends_in_vain_in_the_obstacle(bases, monkeypatch):
    monkeypatch.setattr(ogbench_envs, "make_base", bases)
    tasks = environment_factory("ogbench/pointmaze-medium", protocol="ogbench-detour").tasks
    env = tasks[3]()
    first, info = env.reset(seed=1)
    x, y, radius = env.obstacle
    base = env.unwrapped.base
    assert len(tasks) == 5 and info["task_id"] == 4
    assert not any(env.obstacle.contains(*first[key]) for key in ("achieved_goal", "desired_goal"))
    assert grid_of(base).is_free(np.array([x, y])) and radius == base._maze_unit / 2
    base.set_xy(np.array([x, y + 0.9 * radius]))
    _, reward, terminated, _, info = env.step(np.zeros(2, np.float32))
    assert terminated and reward == 0 and not info["success"]
    base.set_xy(base.cur_goal_xy)
    assert env.step(np.zeros(2, np.float32))[-1]["success"]
    with pytest.raises(ValueError, match="ogbench-detour"):
        environment_factory("ogbench/cube-single", protocol="ogbench-detour")


def test_the_episode_ends_when_the_cube_is_where_it_should_be(compiled):
    env = environment_factory(CUBE)()
    obs, info = env.reset(seed=0)
    base = env.unwrapped.base
    joint = base.data.joint("object_joint_0")
    joint.qpos[:3] = base.data.mocap_pos[0]
    obs, reward, terminated, truncated, info = env.step(np.zeros(5, np.float32))
    assert info["success"] and terminated and reward == 1 and not truncated
    assert np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"]) < 0.4  # 4 cm, in units of 10 cm
    env.close()


def test_a_recording_begins_like_a_shorter_one_and_its_goals_are_achieved(compiled, monkeypatch):
    monkeypatch.setattr(oracles, "RUN_STEPS", 90)
    stream = np.random.get_state(legacy=False)["state"]["key"].copy()
    short, long = (oracles.record(CUBE, steps, seed=5, progress=False) for steps in (10, 200))
    assert (np.random.get_state(legacy=False)["state"]["key"] == stream).all()
    assert len(short) == 1 and long.num_steps >= 200 and long[0] == short
    goal, place = short.extras["goal"], short.obs[:, list(short.goal_dims)]
    ends = np.flatnonzero((goal[1:] != goal[:-1]).any(1)) + 1
    assert all((goal[end - 1] == place[end]).all() for end in ends) and (goal[-1] == place[-1]).all()
    assert short.reward.max() == 1 and np.abs(short.act).max() <= 1 and short.env == environment_factory(CUBE).spec_json


def goal_of(base, env):
    """OGBench's goal in units of the observation, by the formulas of its observations."""
    info, center = base.task_infos[base.cur_task_id - 1], np.array([0.425, 0, 0])
    if "maze" in env or "soccer" in env:
        return info["goal_xy"]
    if env.startswith("cube"):
        return (10 * (info["goal_xyzs"] - center)).ravel()
    if env.startswith("puzzle"):
        return info["goal_button_states"]
    goal = info["goal"]
    return np.hstack([(10 * (goal["block_xyzs"] - center)).ravel(), goal["button_states"], 18 * goal["drawer_pos"],
                      15 * goal["window_pos"]])


@pytest.mark.parametrize("name", ["cube-double", "scene", "puzzle-4x6", "antsoccer-arena"])
def test_the_goals_of_the_single_tasks_are_those_of_the_package(name):
    known = ogbench_tasks()[name]
    base = make_base(f"{name}-singletask-v0")
    assert len(known["goals"]) == base.num_tasks == 5 and base._reward_task_id == known["default"]
    assert gymnasium.spec(f"{name}-singletask-v0").max_episode_steps == known["steps"]
    for base.cur_task_id, goal in enumerate(known["goals"], 1):
        assert np.allclose(goal_of(base, name), goal, atol=1e-6)


@pytest.mark.parametrize("name", ["scene", "puzzle-3x3"])
def test_relabelled_rewards_are_those_of_ogbenchs_single_task_environment(compiled, name):
    """The states of a crafted trajectory: one part after another is put at its goal, and taken away at the end."""
    env = environment_factory(f"OGBench/{name}-singletask-task3-v0")()
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=0)
    assert (first == again).all()
    known, rows = ogbench_tasks()[name], [first]
    for part, goal in by_part(known, 3):
        rows.append(rows[-1].copy())
        rows[-1][part["entries"]] = goal
    rows += [rows[-1].copy(), rows[-1].copy()]
    column = known["parts"][0]["entries"][0]
    rows[-2][column] = 1 - rows[-1][column] if "puzzle" in name else rows[-1][column] + 0.401  # 4.01 cm
    labelled = relabel(flat(np.array(rows)), name, 3)
    P, reset = len(known["parts"]), env.unwrapped.base.compute_reward()
    assert labelled.reward[0] == reset and labelled.reward[P] == 0 and labelled.reward[P + 1] == -1
    assert labelled.lengths.tolist() == [P + 1, 1] and labelled.terminated.tolist() == [False] * P + [True, False]
    env.close()


def by_part(known, task):
    sizes = np.cumsum([len(part["entries"]) for part in known["parts"]])[:-1]
    return zip(known["parts"], np.split(np.array(known["goals"][task - 1]), sizes), strict=True)


def flat(obs):
    T = len(obs) - 1
    never = np.zeros(T, bool)
    return Episodes(obs, np.zeros((T, 5)), np.zeros(T), never, never, np.array([T]))


def test_a_single_task_ends_one_step_after_the_cube_is_there(compiled):
    env = environment_factory("OGBench/cube-single-singletask-task2-v0")()
    env.reset(seed=0)
    base = env.unwrapped.base
    base.data.joint("object_joint_0").qpos[:3] = 0.5, 0, 0.02
    still = np.zeros(5, np.float32)
    *_, reward, terminated, _, info = env.step(still)
    assert reward == 0 and not terminated and not info["success"]
    *_, reward, terminated, _, info = env.step(still)
    assert reward == 0 and terminated and info["success"] is True
    env.close()


def test_a_maze_of_ogbench_is_a_function_of_its_seed_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = environment_factory("OGBench/antmaze-medium-singletask-task1-v0")()
    (first, info), (again, _) = env.reset(seed=5), env.reset(seed=5)
    assert (first == again).all() and info["task_id"] == 1 and not list(tmp_path.iterdir())
    assert env.observation_space.contains(first) and env.step(np.zeros(8, np.float32))[1] == -1
    env.close()


def test_ogbenchs_file_is_found_by_name_and_relabelled(tmp_path, monkeypatch):
    monkeypatch.setenv("OGBENCH_DATASET_DIR", str(tmp_path))
    obs = np.zeros((12, 28), np.float32)
    obs[3, 19:22] = obs[8, 19:22] = 0.75, 0, 0.2  # the goal of task 2
    last = np.zeros(12)
    last[[5, 11]] = 1
    np.savez(tmp_path / "cube-single-play-v0.npz", observations=obs, actions=np.zeros((12, 5), np.float32),
             terminals=last)
    episodes = load_episodes("cube-single-play-singletask-task2-v0")
    assert (load_episodes("cube-single-play-singletask-v0").reward == episodes.reward).all()  # task 2 is its default
    assert episodes.reward.tolist() == [-1, -1, -1, 0, -1, -1, -1, 0, -1, -1]
    assert episodes.lengths.tolist() == [4, 1, 3, 2] and episodes.terminated.nonzero()[0].tolist() == [3, 7]
    assert environment_factory(str(episodes.env)) == environment_factory("OGBench/cube-single-singletask-task2-v0")
    goals = load_episodes("cube-single-play-v0")
    assert goals.goal_dims == (19, 20, 21) and environment_factory(str(goals.env)).env_id == "OGBench/cube-single-v0"
    with pytest.raises(DataError, match=r"scene-play-v0\.npz does not exist; put OGBench's file there or set OGBENCH"):
        load_episodes("scene-play-singletask-v0")
    np.savez(tmp_path / "pointmaze-giant-stitch-v0.npz", observations=obs[:, :2], actions=np.zeros((12, 2), np.float32),
             terminals=last)
    maze = load_episodes("pointmaze-giant-stitch-v0")
    assert maze.goal_dims == (0, 1) and environment_factory(str(maze.env)).env_id == "OGBench/pointmaze-giant-v0"
    with pytest.raises(DataError, match="take gentraj's own recording, gentraj/ogbench/pointmaze-large-explore-v0"):
        load_episodes("pointmaze-large-explore-v0")
