"""Swift computes advantages with values that did not learn from the same episodes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gentraj.agents.policies.critic import ValueConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.swift import Swift, SwiftConfig
from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.networks import ResidualMLPConfig
from gentraj.randomness import generator
from gentraj.training.optimization import apply_gradients
from gentraj.training.step import TrainingStep

SMALL = SwiftConfig(replace(SwiftConfig().model, network=ResidualMLPConfig(width=8, depth=1, frequencies=0)))


def lucky(episodes: int = 40, steps: int = 1) -> Episodes:
    """Rewards are random: an observation predicts its reward only for a network that has memorised the data."""
    rng = np.random.default_rng(0)
    last = np.tile(np.arange(steps) == steps - 1, episodes)
    act, luck = rng.uniform(-1, 1, (episodes * steps, 1)), rng.normal(size=episodes * steps)
    obs = rng.normal(size=(episodes * (steps + 1), 8))
    return Episodes(obs, act, luck, last, np.zeros_like(last), np.full(episodes, steps))


def swift(episodes: Episodes, members: int) -> Swift:
    """The gradients are not clipped, as the members share the norm and thereby the size of a step."""
    torch.manual_seed(0)
    critic = ValueConfig(width=64, n_step=4, members=members, learning_rate=3e-3, max_grad_norm=1e9)
    config = replace(SMALL, critic=critic, expectile=0.5)
    return Swift(config, StateActionScales.fit(episodes, ContextConfig()))


def test_luck_stays_an_advantage_for_values_that_did_not_learn_of_it() -> None:
    """A single network memorises the data and finds no advantages in them. The held-out loss shows it."""
    data, size, held_out, members = lucky(), {}, {}, 3
    for number in (1, members):
        policy = swift(data, number)
        windows, optimizer = Windows(data, policy.spec), policy.optimizers()["value"]
        for step in range(200):
            loss, _ = policy.value_loss(policy.transition(windows.batch(step, 0, 128), 0.99))
            apply_gradients(loss, optimizer, 10.0)
        everything = policy.transition(windows.gather(np.arange(len(windows))), 0.99)
        _, advantage_B = policy.value_loss(everything)
        size[number] = advantage_B.abs().mean()
        metrics = policy.update(TrainingStep(windows.batch(0, 0, 128), policy.optimizers(), generator(0)))
        held_out[number] = metrics["value_loss_held_out"] / metrics["value_loss"]
    assert size[1] < 0.1 and size[members] > 0.5
    assert held_out[1] == pytest.approx(1) and held_out[members] > 10


def test_a_member_learns_nothing_of_the_episodes_that_it_judges() -> None:
    data = lucky()
    batch = Windows(data, swift(data, 2).spec).batch(0, 0, 64)
    assert batch.reward_BH is not None and batch.episode_B is not None
    spoilt_B = batch.episode_B % 2 == 0
    other = replace(batch, reward_BH=torch.where(spoilt_B[:, None], 100.0, batch.reward_BH))
    weights = []
    for each in (batch, other):
        policy = swift(data, 2)
        policy.update(TrainingStep(each, policy.optimizers(), generator(0)))
        weights.append([p.detach() for p in policy.value.parameters()])
    same = [torch.allclose(p[0], q[0], atol=1e-6) for p, q in zip(*weights, strict=True)]
    differ = [not torch.allclose(p[1], q[1], atol=1e-6) for p, q in zip(*weights, strict=True)]
    assert all(same) and any(differ)

