"""What is imagined on a GPU waits for it when it is done, and agents on the CPU take what is observed on one."""

import numpy as np
import torch
from simulated_device import counted
from test_training_on_a_device import DEVICE, narrow

from gentraj.agents.mpc import MPC, MPCConfig
from gentraj.agents.policies import POLICIES, PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.wrappers import NoisyAgent
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import WorldModel, WorldModelConfig

STEPS = 8


def test_a_world_model_waits_when_it_is_done() -> None:
    made = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        world = WorldModel(3, 2, narrow(WorldModelConfig()), WorldFacts.blank(3, 2, 0, 1)).to(device)
        obs_BO, act_BTA = torch.zeros(2, 3), torch.zeros(2, STEPS, 2)
        for _ in range(2):  # at first, some things are made once
            with counted() as waits:
                imagined = world.imagine(obs_BO, act_BTA, seeds=[0, 1])
        assert len(waits) <= 1, f"waits:\n{waits}"
        made.append(imagined.obs_BTO.cpu())
    torch.testing.assert_close(*made)


def test_agents_on_the_cpu_take_what_is_observed_on_a_device() -> None:
    """One that adds noise to a policy's actions, and MPC, whose simulator may be any function."""
    low, high = -np.ones(2), np.ones(2)
    policy = POLICIES.made_of(narrow(PRESETS["iql"][1]))(narrow(PRESETS["iql"][1]), StateActionScales.blank(3, 2, 0))
    noisy = NoisyAgent(Actor(policy.to(DEVICE), low, high), low, high, 0.1)
    mpc = MPC(lambda obs_BO, act_BNTA, _: act_BNTA.sum((2, 3)) + obs_BO.sum(), MPCConfig(horizon=2), low, high)
    for agent in (noisy, mpc):
        agent.reset([0, 1])
        assert agent.act(torch.zeros(2, 3, device=DEVICE)).cpu().abs().max() <= 1
