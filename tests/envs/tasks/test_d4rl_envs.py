"""D4RL's AntMaze and Kitchen as environments of today, and the one command that trains on their files."""

import mujoco
import numpy as np
import pytest

from gentraj.envs.evaluation.scores import DataReturns, score_behaviour
from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.envs.tasks.d4rl_envs import GOAL_PLACES, U_MAZE

knows_its_joints = pytest.mark.skipif(tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 12),
                                      reason='gymnasium-robotics has no kitchen with it: pip install "mujoco<3.12"')


@knows_its_joints
def test_the_kitchen_counts_each_task_once_and_observes_what_d4rl_does():
    env = environment_factory("D4RL/kitchen-mixed-v0")()
    (first, _), (again, _) = env.reset(seed=3), env.reset(seed=3)
    assert (first == again).all() and env.observation_space.contains(first) and first.shape == (60,)
    base = env.unwrapped.base
    assert np.allclose(first[:30], base.data.qpos, atol=0.03)  # within the noise of observations
    goal = np.concatenate([base.goal[task] for task in ("bottom burner", "light switch", "microwave", "kettle")])
    assert (first[30:][[11, 12, 17, 18, 22, *range(23, 30)]] == goal).all() and (first[30:41] == 0).all()
    still, joint = np.zeros(9, np.float32), base.data.qpos
    joint[22] = -0.75  # the microwave is open
    assert [env.step(still)[1] for _ in range(2)] == [1, 0]
    joint[11:13], joint[17:19], joint[23:30] = goal[:2], goal[2:4], goal[5:]
    *_, reward, terminated, _, info = env.step(still)
    assert reward == 3 and terminated and info["success"]
    assert env.spec.max_episode_steps == 280
    env.close()


@knows_its_joints
def test_the_kitchen_of_gymnasium_is_scored_as_d4rls_whatever_the_recording_did():
    recorded = ('{"id": "FrankaKitchen-v1", "max_episode_steps": 450, "kwargs": {"remove_task_when_completed": false, '
                '"terminate_on_tasks_completed": false, "tasks_to_complete": ["microwave", "kettle", "light switch", '
                '"slide cabinet"]}}')
    factory = environment_factory(recorded)
    assert factory.max_episode_steps == 280 and factory.kwargs["remove_task_when_completed"]
    assert environment_factory(recorded.replace("450", "100")).max_episode_steps == 100
    config = EvaluationConfig(episodes=1, baselines=False)
    scores, episodes = score_agent(RandomAgent(-np.ones(9), np.ones(9)), recorded, config, progress=False)
    assert scores["score_d4rl"] == 25 * scores["return_mean"] and scores["success_rate"] is None
    assert episodes.obs_dim == 59 and "goal" not in episodes.extras


@pytest.mark.parametrize("size", ["umaze", "large"])
def test_antmaze_ends_at_its_goal_with_a_reward_of_one(size, tmp_path, monkeypatch):
    pytest.importorskip("ogbench")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = environment_factory(f"D4RL/antmaze-{size}-diverse-v2")()
    (first, _), goal = env.reset(seed=5), env.unwrapped.base.cur_goal_xy.copy()
    again, _ = env.reset(seed=5)
    assert (first == again).all() and (goal == env.unwrapped.base.cur_goal_xy).all() and not list(tmp_path.iterdir())
    assert first.shape == (29,) and (np.abs(first[:2]) < 0.5).all()
    env.reset(seed=6)
    offset = env.unwrapped.base.cur_goal_xy - GOAL_PLACES[size]
    assert ((offset >= 0) & (offset <= 1.5)).all() and (goal != env.unwrapped.base.cur_goal_xy).all()
    assert env.step(np.zeros(8, np.float32))[1:3] == (0, False)
    env.unwrapped.base.set_xy(env.unwrapped.base.cur_goal_xy)
    *_, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
    assert reward == 1 and terminated and info["success"] is True
    env.close()


def test_its_u_maze_has_walls_where_d4rl_has_them():
    pytest.importorskip("ogbench")
    env = environment_factory("D4RL/antmaze-umaze-v2")()
    model = env.unwrapped.base.model
    walls = {model.geom(i).name: model.geom_pos[i][:2] for i in range(model.ngeom)
             if model.geom(i).name.startswith("block")}
    assert walls.keys() == {f"block_{i}_{j}" for i, j in np.argwhere(U_MAZE)}
    assert (walls["block_2_1"] == (0, 4)).all()  # between the start at (0, 0) and the goal at (0, 8)
    env.close()


def test_the_returns_of_the_data_are_not_set_beside_those_of_an_agent():
    """In the kitchen they count in each step all tasks that are done."""
    factory = environment_factory("D4RL/kitchen-partial-v0")
    scores, why = score_behaviour([DataReturns(5, 400.0, 280, 5, 5)], factory.spec_json, factory)
    assert scores is None and "were not recorded as an agent is evaluated" in why
