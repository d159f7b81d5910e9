"""The kitchen of gymnasium-robotics, scored as D4RL's."""

import mujoco
import numpy as np
import pytest

from gentraj.envs.evaluation.scoring import EvaluationConfig, score_agent
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent

knows_its_joints = pytest.mark.skipif(tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 12),
                                      reason='gymnasium-robotics has no kitchen with it: pip install "mujoco<3.12"')


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
