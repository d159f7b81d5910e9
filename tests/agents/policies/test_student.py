"""A student acts by one of the ways of its teacher, as its slower form does, for each environment by itself."""

import numpy as np
import pytest
import torch

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import Student, StudentActor, StudentConfig, chosen, uniform
from gentraj.data import ContextConfig, Episodes, Windows
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.training.step import TrainingStep

LOW, HIGH = np.array([-0.8, -0.5], np.float32), np.array([0.5, 0.9], np.float32)


def normalizer(dim: int, seed: int) -> Normalizer:
    sampled = generator(seed)
    return Normalizer(torch.randn(dim, generator=sampled), torch.rand(dim, generator=sampled) + 0.5)


def student(goals: int, **changes: object) -> Student:
    """An untrained student of four observations and two actions, with scales that differ from 0 and 1."""
    torch.manual_seed(0)
    goal = normalizer(goals, 3) if goals else None
    scales = StateActionScales(normalizer(4, 1), normalizer(2, 2), goal, normalizer(1, 4))
    return Student(StudentConfig(**{"width": 16} | changes), scales)  # type: ignore[arg-type]


@pytest.mark.parametrize(("goals", "changes"), [
    (0, {}), (2, {}), (2, {"goal_dims": (2, 0)}), (2, {"goal_dims": (0, 1), "components": 1}),
    (0, {"chunk": 3, "execute": 2}), (0, {"chunk": 3, "execute": 2, "sample": True})], ids=str)
def test_the_fast_agent_acts_as_the_slow_one(goals: int, changes: dict[str, object]) -> None:
    policy, sampled = student(goals, **changes), generator(5)
    fast, slow = StudentActor(policy, LOW, HIGH), Actor(policy, LOW, HIGH)
    for agent in (fast, slow):
        agent.reset(list(range(20)))
    for _ in range(3):
        obs_BO = 10 ** torch.linspace(-1, 3, 20)[:, None] * torch.randn(20, 4, generator=sampled)  # beyond the bound
        goal_BG = torch.randn(20, goals, generator=sampled) if goals else None
        act_BA = fast.act(obs_BO, goal_BG)
        assert act_BA.shape == (20, 2) and ((act_BA >= torch.tensor(LOW)) & (act_BA <= torch.tensor(HIGH))).all()
        assert torch.allclose(act_BA, slow.act(obs_BO, goal_BG), atol=1e-5)


def test_of_two_ways_it_takes_the_more_frequent_one() -> None:
    """Where s > 0, a third of the actions are about -0.6 and the others 0.6, whatever components describe them."""
    draw = np.random.default_rng(0)
    obs, noise = draw.normal(size=(2000, 2, 2)), 0.05 * draw.normal(size=2000)
    act = np.where((obs[:, 0, 0] > 0) & (draw.random(2000) < 1 / 3), -0.6, 0.6) + noise
    yes = np.ones(2000, bool)
    data = Episodes(obs.reshape(-1, 2), act[:, None], np.zeros(2000), yes, ~yes, np.ones(2000, int))
    torch.manual_seed(0)
    config = StudentConfig(width=32, depth=1, components=4, batch_size=128, learning_rate=5e-3)
    policy = Student(config, StateActionScales.fit(data, ContextConfig()))
    windows, optimizers = Windows(data, policy.spec), policy.optimizers()
    for step in range(200):
        policy.update(TrainingStep(windows.batch(step, 0, 128), optimizers, generator(step)))
    act_B = StudentActor(policy, -HIGH[:1], HIGH[:1]).act(torch.randn(200, 2, generator=generator(9)))[:, 0]
    assert ((act_B - 0.5).abs() < 0.1).float().mean() > 0.9


def test_a_component_is_drawn_by_its_weight_and_by_the_seed_of_its_row_alone() -> None:
    weight_BM, centre_BMX = torch.tensor([0.2, 0.5, 0.3]).expand(4000, 3), torch.tensor([0.0, 1.0, 2.0])[:, None]
    found_B = chosen(weight_BM.log() - 5, centre_BMX.expand(4000, 3, 1), uniform(RowNoise(range(4000)), 1))[:, 0]
    assert (found_B.long().bincount() / 4000).tolist() == pytest.approx([0.2, 0.5, 0.3], abs=0.03)
    again_B = chosen(weight_BM[:2].log(), centre_BMX.expand(2, 3, 1), uniform(RowNoise([7, 3]), 1))[:, 0]
    assert torch.equal(again_B, found_B[[7, 3]])


def test_the_draws_of_an_episode_are_a_function_of_its_seed() -> None:
    obs_BO = torch.zeros(2, 4)
    agent, alone = (StudentActor(student(0, sample=True, components=9), LOW, HIGH) for _ in range(2))
    agent.reset([5, 6])
    together = [agent.act(obs_BO)[1] for _ in range(150)]
    alone.reset([6])
    for act_A in together:
        torch.testing.assert_close(alone.act(obs_BO[:1])[0], act_A)
    assert len(torch.stack(together).unique(dim=0)) == 9  # of one state
