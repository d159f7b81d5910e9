"""The critic of actions: its initial values, its values of a chain computed by hand, and what it ignores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_policies import bandit, chain, make, small, windows_of
from torch import Tensor, nn

from gentraj.agents.policies.critic import (
    Critic,
    CriticConfig,
    advantage_weights,
    expectile,
)
from gentraj.agents.policies.policy import Transition
from gentraj.agents.policies.scales import StateActionScales
from gentraj.data import ContextConfig
from gentraj.randomness import generator
from gentraj.training.optimization import apply_gradients
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch


class Valued(nn.Module):
    """Members that value a pair of state and action by its entries: the first, and half of the sum of all."""

    def forward(self, x_RX: Tensor) -> Tensor:
        return torch.stack([x_RX[:, 0], x_RX.sum(1) / 2])

    def update_parameters(self, network: nn.Module) -> None:
        pass


def critic_of(target: nn.Module | None = None, start: float = 0.0, **settings: Any) -> Critic:
    torch.manual_seed(0)
    critic = Critic(2, 1, CriticConfig(width=8, **settings), start)
    if target is not None:
        critic.target = target  # type: ignore[assignment]
    return critic


def transitions() -> Transition:
    """Those of `chain` with chunks of two actions of which the critic sees one: the last is cut."""
    t = windows_of(make(small("bc-gaussian", chunk=2), chain()), chain(), 0.5)
    return replace(t, chunk_BX=t.chunk_BX[:, :1])


def learn(critic: Critic, t: Transition, next_value: Tensor, optimizer: Any) -> dict[str, Tensor]:
    """One step of the critic towards r + discount V(s')."""
    loss, metrics = critic.loss(t, t.reward_B + t.discount_B * next_value)
    apply_gradients(loss, optimizer, critic.config.max_grad_norm)
    critic.target.update_parameters(critic.q)
    return metrics


def test_the_best_candidate_has_the_highest_least_value() -> None:
    critic, state = critic_of(Valued()), torch.tensor([[3.0, -1.0], [0.0, 0.0]])
    act_BNKA = torch.tensor([[1.0, 2.0, 5.0], [-3.0, -1.0, -2.0]])[..., None, None]
    assert critic.best(state, act_BNKA).flatten().tolist() == [5, -1]  # least 1.5, 2 and 3; -1.5, -0.5 and -1


def test_the_loss_is_the_squared_error_in_units_of_the_values_over_whole_chunks() -> None:
    critic, t = critic_of(start=50.0), transitions()
    q_EB, next_value = critic(t.state_BS, t.chunk_BX), torch.tensor([9.0, 5.0, 7.0, 20.0, 1000.0])
    metrics = learn(critic, t, next_value, critic.optimizer())
    error_EB = (q_EB - t.reward_B - t.discount_B * next_value)[:, :4] / 25  # half of the start is the unit
    torch.testing.assert_close(metrics["critic_loss"], (error_EB**2).mean())
    torch.testing.assert_close(metrics["q"], q_EB.mean().detach())


def test_values_relative_to_the_batch_have_a_mean_size_of_one() -> None:
    critic, state = critic_of(), torch.randn(6, 2, generator=generator(1))
    x_BHD = torch.zeros(6, 1, 3)
    step = TrainingStep(Batch(x_BHD, x_BHD == 0), {}, generator(0))
    chunk = torch.randn(6, 1, generator=generator(2))
    q_B, relative_B = critic(state, chunk).mean(0), critic.relative(state, chunk, step)
    assert relative_B.abs().mean().item() == pytest.approx(1)
    torch.testing.assert_close(relative_B, q_B / q_B.abs().mean())
    nothing = critic_of()
    nn.init.zeros_(nothing.q.weight[-1])
    nn.init.constant_(nothing.q.bias[-1], 1e-9)
    torch.testing.assert_close(nothing.relative(state, chunk, step), torch.full((6,), 1e-3))


def test_values_start_where_the_mean_reward_until_the_mean_end_leads() -> None:
    data = chain()
    size = np.sqrt((data.reward**2).mean())
    usual = StateActionScales.fit(data, ContextConfig())
    assert usual.initial_value(0.5) * size == pytest.approx(3 / (1 - 0.5 * 0.8))  # rewards of mean 3, an end in 5 steps
    other = StateActionScales.fit(bandit(), ContextConfig())
    assert other.initial_value(0.99) == pytest.approx(0.5**0.5, abs=0.05)
    critic = Critic(2, 1, CriticConfig(width=8), start=50.0)
    assert critic(torch.zeros(1, 2), torch.zeros(1, 1)).mean().item() == pytest.approx(50, abs=2)


def test_an_expectile_and_weights_by_hand() -> None:
    torch.testing.assert_close(expectile(torch.tensor([-2.0, -0.5, 0.5, 2.0]), 0.9),
                               torch.tensor([0.4, 0.025, 0.225, 3.6]))
    weights = advantage_weights(torch.tensor([1.0, -1.0]), 1.0)
    assert weights.mean().item() == pytest.approx(1) and (weights[0] / weights[1]).item() == pytest.approx(np.exp(2))
    half = advantage_weights(torch.tensor([1.0, -1.0, 50.0]), 1.0, torch.tensor([1.5, 1.5, 0.0]))
    assert half[:2].tolist() == pytest.approx(weights.tolist())  # the third row counts for nothing
    assert advantage_weights(torch.ones(2), 1.0, torch.zeros(2)).isfinite().all()
    assert advantage_weights(torch.tensor([1e30, -1e30, 0.0]), 100.0).isfinite().all()
    one_is_best = advantage_weights(torch.cat([torch.zeros(255), torch.ones(1)]), 10.0)
    assert one_is_best.max() / one_is_best.min() == pytest.approx(100)
