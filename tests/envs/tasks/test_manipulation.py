"""OGBench's manipulation: goals are entries of the observation, and episodes and recordings depend on the seed only."""

import sys

import gymnasium
import numpy as np
import pytest

from envs.making import environment_factory
from envs.recording import oracles
from envs.tasks.overview import default_horizon
from envs.tasks.registry import MANIPULATION

pytest.importorskip("ogbench")
CUBE = "ogbench/cube-single"


@pytest.fixture(scope="module", params=MANIPULATION)
def arm(request):
    env = environment_factory(request.param)()
    yield MANIPULATION[request.param], env
    env.close()


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_a_goal_consists_of_entries_of_the_observation(arm):
    task, env = arm
    obs, info = env.reset(seed=1)
    assert (obs["achieved_goal"] == obs["observation"][list(task.goal_dims)]).all() and not info["success"]
    assert obs["desired_goal"].shape == obs["achieved_goal"].shape != (0,)
    assert env.observation_space.contains(obs) and env.spec.max_episode_steps == task.max_episode_steps


def test_an_episode_is_a_function_of_its_seed(arm):
    _, env = arm
    act = np.random.default_rng(0).uniform(-1, 1, (8, 5)).astype(np.float32)

    def episode(seed):
        first, info = env.reset(seed=seed)
        return info["task_id"], [first, *(env.step(a)[0] for a in act)]

    task_id, before = episode(3)
    episode(4)  # leaves nothing behind
    again_id, after = episode(3)
    assert task_id == again_id and all(map(equal, before, after))


def test_each_of_the_five_goals_can_be_asked_for(arm):
    _, env = arm
    goals = {tuple(env.reset(seed=0, options={"task_id": t})[0]["desired_goal"].round(2)) for t in range(1, 6)}
    assert len(goals) == 5


def test_the_episode_ends_when_the_cube_is_where_it_should_be():
    env = environment_factory(CUBE)()
    obs, info = env.reset(seed=0)
    base = env.unwrapped.base
    joint = base.data.joint("object_joint_0")
    joint.qpos[:3] = base.data.mocap_pos[0]
    obs, reward, terminated, truncated, info = env.step(np.zeros(5, np.float32))
    assert info["success"] and terminated and reward == 1 and not truncated
    assert np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"]) < 0.4  # 4 cm, in units of 10 cm
    env.close()


def test_a_recording_begins_like_a_shorter_one_and_its_goals_are_achieved(monkeypatch):
    monkeypatch.setattr(oracles, "RUN_STEPS", 90)
    stream = np.random.get_state()[1].copy()
    short, long = (oracles.record(CUBE, steps, seed=5, progress=False) for steps in (10, 200))
    assert (np.random.get_state()[1] == stream).all()
    assert len(short) == 1 and long.num_steps >= 200 and long[0] == short
    goal, place = short.extras["goal"], short.obs[:, list(short.goal_dims)]
    ends = np.flatnonzero((goal[1:] != goal[:-1]).any(1)) + 1
    assert all((goal[end - 1] == place[end]).all() for end in ends) and (goal[-1] == place[-1]).all()
    assert short.reward.max() == 1 and np.abs(short.act).max() <= 1 and short.env == environment_factory(CUBE).spec_json


def test_its_plans_are_as_long_as_its_task_says():
    for name, task in MANIPULATION.items():
        assert default_horizon(name) == default_horizon(environment_factory(name).spec_json) == task.horizon


def test_without_ogbench_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench.manipspace", None)
    with pytest.raises(ImportError, match=r"needs ogbench.*pip install 'gentraj\[ogbench\]'") as error:
        oracles.record(CUBE, 10)
    assert "\n" not in str(error.value)
    assert gymnasium.spec("OGBench/cube-single-v0").max_episode_steps == 200
