"""An agent behind stable-baselines3's `predict`: its shapes, its states, its evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BC, BCConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.sb3 import SB3Policy
from gentraj.data import ContextConfig, Episodes
from gentraj.families import ACTION_MODELS
from gentraj.networks import ResidualMLPConfig
from gentraj.trajectory import Agent


class Remembering(Agent):
    """An agent whose action is the number of steps since its episode began, the episode's seed, and the goal."""

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if len(getattr(self, "age_B", ())) != len(mask_B):
            self.age_B = torch.zeros(len(mask_B))
        self.age_B[mask_B], self.seed_B = 0, torch.tensor([seed % 1000 for seed in seeds_B])

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        self.seen, self.age_B = obs_BO, self.age_B + 1
        goal_B = torch.zeros(len(obs_BO)) if goal_BG is None else goal_BG[:, 0]
        return torch.stack([self.age_B, self.seed_B, goal_B], 1)


def test_parts_of_a_dict_with_several_axes_are_flattened_as_in_the_data() -> None:
    agent = Remembering()
    policy = SB3Policy(agent, obs_keys=("place", "turn"))
    one = {"place": np.ones(2), "turn": np.array([[2.0, 3.0], [4.0, 5.0]])}
    assert policy.predict(one)[0].shape == (3,) and agent.seen.tolist() == [[1, 1, 2, 3, 4, 5]]
    for batch in (1, 3):
        several = {key: np.stack([x] * batch) for key, x in one.items()}
        assert policy.predict(several)[0].shape == (batch, 3) and agent.seen.tolist() == [[1, 1, 2, 3, 4, 5]] * batch
    with pytest.raises(ValueError, match=r"observations of shape \[\(2, 2\), \(3, 2, 2\)\] were given"):
        policy.predict({"place": np.ones((2, 2)), "turn": np.ones((3, 2, 2))})


def test_an_episode_goes_on_with_its_state_and_begins_where_it_starts() -> None:
    policy, obs = SB3Policy(Remembering()), np.zeros((2, 4))
    act, state = policy.predict(obs, None, np.ones(2, bool))
    assert act.shape == (2, 3) and SB3Policy(Remembering()).predict(obs[0])[0].shape == (3,) and act.dtype == np.float32
    assert act[:, 0].tolist() == [1, 1] and act[0, 1] != act[1, 1]
    again, state = policy.predict(obs, state, np.zeros(2, bool))
    assert again[:, 0].tolist() == [2, 2] and (again[:, 1] == act[:, 1]).all()
    fresh, state = policy.predict(obs, state, np.array([False, True]))
    assert fresh[:, 0].tolist() == [3, 1] and fresh[0, 1] == act[0, 1] and fresh[1, 1] != act[1, 1]
    assert policy.predict(obs)[0][:, 0].tolist() == [1, 1]  # who drops the state begins anew
    with pytest.raises(ValueError, match="a state of 2 episodes was given with 3 observations; give back what"):
        policy.predict(np.zeros((3, 4)), state)


def cloned() -> Actor:
    """An untrained flow of actions."""
    rng, end = np.random.default_rng(0), np.ones(50, bool)
    data = Episodes(rng.normal(size=(100, 3)), rng.uniform(-1, 1, (50, 1)), np.zeros(50), end, ~end, np.ones(50, int))
    config: Any = BCConfig(ACTION_MODELS["flow"].with_network(ResidualMLPConfig(8, 1, 0)))
    torch.manual_seed(0)
    return Actor(BC(config, StateActionScales.fit(data, ContextConfig())), np.full(1, -2.0), np.full(1, 2.0))


def test_deterministic_answers_are_the_same_and_others_vary_by_the_seed() -> None:
    obs = np.array([0.3, -0.1, 0.8])
    policy, twin, other = SB3Policy(cloned()), SB3Policy(cloned()), SB3Policy(cloned(), seed=1)
    assert policy.predict(obs, deterministic=True)[0] == policy.predict(obs, deterministic=True)[0]
    draws = [[float(p.predict(obs)[0][0]) for _ in range(5)] for p in (policy, twin, other)]
    assert len({*draws[0]}) == 5 and not {*draws[0]} & {*draws[2]}
    twin.episodes = policy.episodes = 0
    assert [twin.predict(obs)[0] for _ in range(3)] == [policy.predict(obs)[0] for _ in range(3)]


def test_stable_baselines_evaluates_it() -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    vector = pytest.importorskip("stable_baselines3.common.vec_env")
    import gymnasium

    envs = vector.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1", max_episode_steps=20)] * 2)
    envs.seed(0)
    returns, lengths = evaluation.evaluate_policy(SB3Policy(cloned()), envs, n_eval_episodes=4,
                                                  return_episode_rewards=True, warn=False)
    assert lengths == [20] * 4 and len({*returns}) == 4 and max(returns) < 0
