"""Imagination: which of an agent's decisions is carried out, by hand-made worlds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gentraj.agents.imagination import Imagination, ImaginationConfig, PolicyValue
from gentraj.agents.policies.bc import BC, BCConfig
from gentraj.agents.policies.critic import Critic
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.td3bc import TD3BC, TD3BCConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import Agent, TrajectorySpec
from gentraj.worlds.model import Imagined, WorldModel


class Adding:
    """The action is added to the observation and is the reward; above 1 the episode ends. It is unsure of |action|."""

    facts = SimpleNamespace(goal_dim=0)

    def __init__(self, history: int = 1):
        self.spec = TrajectorySpec(1, 1, 2, history=history, past_actions=history - 1)
        self.remembered = list[Tensor | None]()

    def imagine(self, obs_BO: Tensor, act_BTA: Tensor, goal_BG: Any, *,
                past_BPD: Tensor | None) -> Imagined:
        self.remembered.append(past_BPD)
        next_BTO = obs_BO[:, None] + act_BTA
        return Imagined(next_BTO, act_BTA[..., 0], (next_BTO[..., 0] > 1).float(), act_BTA[..., 0].abs())


class Constant(Agent):
    """Candidate n of each environment repeats the n-th of these actions."""

    spec = TrajectorySpec(1, 1, 2)

    def __init__(self, *acts: float):
        self.acts_N1 = torch.tensor(acts)[:, None]

    def _act(self, obs_BO: Tensor, goal_BG: Any) -> Tensor:
        return self.acts_N1.repeat(len(obs_BO) // len(self.acts_N1), 1)


def chosen(*acts: float, horizon: int = 4, reward: Any = None, value: Any = None, penalty: float = 0.0) -> list[float]:
    """What is done in the states -9 and 0.5."""
    config = ImaginationConfig(len(acts), horizon, 0.5, penalty)
    agent = Imagination(Constant(*acts), cast(WorldModel, Adding()), config, reward, value)
    return agent.act(torch.tensor([[-9.0], [0.5]]))[:, 0].tolist()


def test_the_decision_with_the_highest_imagined_return_is_carried_out() -> None:
    """0.7 four times is worth 0.7 (1 + 1/2 + 1/4 + 1/8) = 1.3, unless the episode ends after the first, as in 0.5."""
    assert chosen(0.1, 0.7, 0.4) == pytest.approx([0.7, 0.7])
    assert chosen(0.1, 0.7, 0.45) == pytest.approx([0.7, 0.7]) and chosen(0.7, 0.5) == pytest.approx([0.7, 0.5])


def test_rewards_may_be_new_and_the_unknown_may_cost() -> None:
    assert chosen(0.1, 0.7, -0.4, reward=lambda obs_BO, goal: -obs_BO[:, 0]) == pytest.approx([-0.4, -0.4])
    assert chosen(0.1, 0.7, penalty=2.0) == pytest.approx([0.1, 0.1])


def test_the_last_states_are_valued_where_the_episode_goes_on() -> None:
    none = {"horizon": 1, "reward": lambda obs_BO, goal: 0 * obs_BO[:, 0]}
    assert chosen(0.3, 0.9, value=lambda obs_BO, goal: obs_BO[:, 0] + 20, **none) == pytest.approx([0.9, 0.3])


def test_the_value_of_a_policy_is_for_the_rewards_that_it_learned_from() -> None:
    """Less by 1 and divided by 2. To go on costs then, and to end, as after 0.7 in 0.5, does not."""
    scales = StateActionScales.blank(1, 1, 0)
    scales.reward = Normalizer(torch.ones(1), torch.full((1,), 2.0))
    policy = TD3BC(TD3BCConfig(), scales)
    value = PolicyValue.of(policy)
    assert value is not None
    obs_BO = torch.tensor([[-9.0], [0.5]])
    q_B = policy.critic.target_value(obs_BO, policy.sample_actions(obs_BO, [0, 0]).flatten(1))
    torch.testing.assert_close(value(obs_BO, None), 2 * q_B)
    value.critic = cast(Critic, SimpleNamespace(target_value=lambda state_BS, act_BX: torch.full((len(act_BX),), -1.0)))
    assert chosen(0.1, 0.7, horizon=2, value=value) == pytest.approx([0.7, 0.7])
    assert PolicyValue.of(BC(BCConfig(), scales)) is None


def test_scores_that_are_not_finite_or_not_one_for_each_state_are_refused() -> None:
    for wrong, message in ((torch.full((2,), torch.nan), "not finite"), (torch.zeros(2, 1), r"returned shape \(2, 1\)"),
                           ([0.0, 0.0], r"returned \[0.0, 0.0\] for observations")):
        with pytest.raises(ValueError, match=message):
            chosen(0.1, reward=lambda obs_BO, goal, wrong=wrong: wrong)


def test_a_world_with_a_history_is_given_the_steps_before_in_fact_and_in_imagination() -> None:
    world = Adding(history=2)
    agent = Imagination(Constant(0.25), cast(WorldModel, world), ImaginationConfig(1, 2))
    agent.act(torch.tensor([[-1.0]]))
    agent.took(torch.tensor([[0.5]]))  # another agent's noise
    agent.act(torch.tensor([[-0.5]]))
    steps = [[-1, 0], [-1, 0.25], [-1, 0.5], [-0.5, 0.25]]  # an observation and its action, before each imagined step
    assert [past_BPD[0, 0].tolist() for past_BPD in world.remembered if past_BPD is not None] == steps
