"""What is imagined on a GPU waits for it when it is done; a planner, once more for each of its parts in each step."""

import numpy as np
import pytest
import torch
from simulated_device import counted
from test_training_on_a_device import DEVICE, narrow

from gentraj.agents.imagination import Imagination, ImaginationConfig, PolicyValue
from gentraj.agents.mpc import MPC, MPCConfig
from gentraj.agents.policies import ACTORS, POLICIES, PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.policy import PolicyConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import StudentConfig
from gentraj.agents.wrappers import NoisyAgent
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import WorldModel, WorldModelConfig

STEPS = 8


@pytest.mark.parametrize(("config", "goal_dim"), [(PRESETS["iql"][1], 0), (PRESETS["diffusion-policy"][1], 2),
                                                  (PRESETS["fql"][1], 0), (StudentConfig(), 2)])
def test_imagination_waits_when_it_is_done(config: PolicyConfig, goal_dim: int) -> None:
    scores = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        world = WorldModel(3, 2, narrow(WorldModelConfig()), WorldFacts.blank(3, 2, 0, 1)).to(device)
        config = narrow(config)
        policy = POLICIES.made_of(config)(config, StateActionScales.blank(3, 2, goal_dim)).to(device)
        actor = ACTORS.get(type(policy), Actor)(policy, -np.ones(2), np.ones(2))
        agent = Imagination(actor, world, ImaginationConfig(candidates=3, horizon=STEPS), value=PolicyValue.of(policy))
        obs_BO, act_BTA = torch.zeros(2, 3), torch.zeros(2, STEPS, 2)
        goal_BG = None
        if goal_dim:
            goal_BG = torch.ones(2, goal_dim)
        agent.reset([0, 1])
        for _ in range(2):  # at first, some things are made once
            with counted() as waits:
                world.imagine(obs_BO, act_BTA, seeds=[0, 1])
            with counted() as more:
                agent.act(obs_BO, goal_BG)
        assert len(waits) <= 1, f"waits:\n{waits}"
        assert len(more) <= 2, f"waits:\n{more}"  # whether all is finite, and the choice
        scores.append(agent.imagine(obs_BO, goal_BG))
    torch.testing.assert_close(*scores)


def test_agents_on_the_cpu_take_what_is_observed_on_a_device() -> None:
    """One that adds noise to a policy's actions, and MPC, whose simulator may be any function."""
    low, high = -np.ones(2), np.ones(2)
    policy = POLICIES.made_of(narrow(PRESETS["iql"][1]))(narrow(PRESETS["iql"][1]), StateActionScales.blank(3, 2, 0))
    noisy = NoisyAgent(Actor(policy.to(DEVICE), low, high), low, high, 0.1)
    mpc = MPC(lambda obs_BO, act_BNTA, _: act_BNTA.sum((2, 3)) + obs_BO.sum(), MPCConfig(horizon=2), low, high)
    for agent in (noisy, mpc):
        agent.reset([0, 1])
        assert agent.act(torch.zeros(2, 3, device=DEVICE)).cpu().abs().max() <= 1
