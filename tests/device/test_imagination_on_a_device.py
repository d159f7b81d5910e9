"""What is imagined on a GPU waits for it when it is done, and once for each of the agent's decisions on the way."""

import numpy as np
import torch
from simulated_device import counted
from test_training_on_a_device import DEVICE, narrow

from gentraj.agents.imagination import Imagination, ImaginationConfig
from gentraj.agents.policies import PRESETS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.iql import IQL
from gentraj.agents.policies.scales import StateActionScales
from gentraj.worlds.facts import WorldFacts
from gentraj.worlds.model import WorldModel, WorldModelConfig

STEPS = 4


def test_imagination_waits_for_decisions_alone() -> None:
    world = WorldModel(3, 2, narrow(WorldModelConfig()), WorldFacts.blank(3, 2, 0, 1)).to(DEVICE)
    policy = IQL(narrow(PRESETS["iql"][1]), StateActionScales.blank(3, 2, 0)).to(DEVICE)
    agent = Imagination(Actor(policy, -np.ones(2), np.ones(2)), world, ImaginationConfig(candidates=3, horizon=STEPS))
    obs_BO, act_BTA = torch.zeros(2, 3), torch.zeros(2, STEPS, 2)
    for _ in range(2):  # at first, some things are made once
        with counted() as waits:
            world.imagine(obs_BO, act_BTA, seeds=[0, 1])
        with counted() as more:
            agent.act(obs_BO)
    assert len(waits) <= 1, f"waits:\n{waits}"
    assert len(more) <= 3 * STEPS, f"waits:\n{more}"  # the policy's sample, its action, and the next state
