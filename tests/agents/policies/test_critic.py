"""The critic of actions: its initial values, its values of a chain computed by hand, and what it ignores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_policies import bandit, chain, make, small
from torch import nn

from agents.policies.bc import BCConfig
from agents.policies.critic import Critic, CriticConfig, advantage_weights, expectile
from agents.policies.policy import Scales
from gentraj.data import ContextConfig, Windows
from gentraj.randomness import generator


def test_values_start_where_the_mean_reward_until_the_mean_end_leads() -> None:
    data = chain()
    size = np.sqrt((data.reward**2).mean())
    usual = Scales.fit(data, ContextConfig()).reward_statistics
    assert usual.initial_value(0.5) * size == pytest.approx(3 / (1 - 0.5 * 0.8))  # rewards of mean 3, an end in 5 steps
    assert Scales.fit(bandit(), ContextConfig()).reward_statistics.initial_value(0.99) == pytest.approx(0.5**0.5,
                                                                                                        abs=0.05)
    critic = Critic(2, 1, CriticConfig(width=8), start=50.0)
    assert critic(torch.zeros(1, 2), torch.zeros(1, 1)).mean().item() == pytest.approx(50, abs=2)


def test_a_critic_learns_the_discounted_sum_of_a_chain() -> None:
    policy, data = make(small(BCConfig), chain()), chain()
    critic = Critic(2, 1, CriticConfig(discount=0.5, width=64, tau=0.1, learning_rate=1e-2))
    t = policy.transition(Windows(data, policy.spec).gather(np.arange(5)), 0.5)
    optimizer, after = critic.optimizer(), torch.tensor([1, 2, 2, 4, 4])
    for _ in range(600):
        value_B = critic.target_min(t.state_BS, t.chunk_BX)
        critic.update(t, value_B[after], optimizer)
    size = float(np.sqrt((data.reward**2).mean()))
    expected = torch.tensor([1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3, 4 + 0.5 * 10, 10])  # the cut step repeats for ever
    torch.testing.assert_close(critic(t.state_BS, t.chunk_BX).mean(0).detach() * size, expected, rtol=0.1, atol=0.1)


def test_an_expectile_and_weights_by_hand() -> None:
    torch.testing.assert_close(expectile(torch.tensor([-2.0, 2.0]), 0.9), torch.tensor([0.4, 3.6]))
    weights = advantage_weights(torch.tensor([1.0, -1.0]), 1.0)
    assert weights.mean().item() == pytest.approx(1) and (weights[0] / weights[1]).item() == pytest.approx(np.exp(2))
    half = advantage_weights(torch.tensor([1.0, -1.0, 50.0]), 1.0, torch.tensor([1.5, 1.5, 0.0]))
    assert (half[0] / half[1]).item() == pytest.approx(np.exp(2))
    assert advantage_weights(torch.tensor([1e30, -1e30, 0.0]), 100.0).isfinite().all()
    one_is_best = advantage_weights(torch.cat([torch.zeros(255), torch.ones(1)]), 10.0)
    assert one_is_best.max() / one_is_best.min() == pytest.approx(100)


def test_values_near_a_hundred_differ_in_bfloat16_too() -> None:
    critic = Critic(2, 1, CriticConfig(width=16), start=100.0)
    state, chunk = torch.randn(64, 2, generator=generator(2)), torch.zeros(64, 1)
    with torch.autocast(state.device.type, torch.bfloat16):
        values = critic(state, chunk)
    assert values.dtype == torch.float32 and len(values[0].unique()) > 50


def test_a_chunk_that_a_time_limit_cuts_teaches_the_critic_nothing() -> None:
    policy, data = make(small(BCConfig, chunk=2), chain()), chain()
    t = policy.transition(Windows(data, policy.spec).gather(np.arange(5)), 0.5)
    assert t.whole_B.tolist() == [True, True, True, True, False]  # the third led to a true end
    learnt = []
    for reward in (t.reward_B, t.reward_B + 100 * ~t.whole_B):
        torch.manual_seed(0)
        critic = Critic(2, 2, CriticConfig(width=8))
        critic.update(replace(t, reward_B=reward), torch.zeros(5), critic.optimizer())
        learnt.append(critic.q.weight[0].clone())
    assert torch.equal(*learnt)


def test_values_of_a_critic_teach_the_actions_and_not_the_critic() -> None:
    critic = Critic(2, 1, CriticConfig(width=8))
    chunk = torch.zeros(4, 1, requires_grad=True)
    critic.relative(torch.ones(4, 2), chunk).sum().backward()
    assert chunk.grad is not None and chunk.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in nn.ModuleList([critic.q]).parameters())
