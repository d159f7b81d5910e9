"""The critic of actions: its initial values, its values of a chain computed by hand, and what it ignores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_policies import bandit, chain, make, small
from torch import Tensor, nn

from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.critic import (
    Critic,
    CriticConfig,
    advantage_weights,
    average,
    expectile,
    state_value,
    update_implicit,
)
from gentraj.agents.policies.policy import Scales, Transition
from gentraj.data import ContextConfig, Windows
from gentraj.randomness import generator
from gentraj.training.optimization import adamw
from gentraj.trajectory import TrajectorySpec


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
    t = make(small(BCConfig, chunk=2), chain()).transition(Windows(chain(), TrajectorySpec(2, 1, 3)).gather(
        np.arange(5)), 0.5)
    return replace(t, chunk_BX=t.chunk_BX[:, :1])


def test_the_value_of_an_action_is_the_least_of_the_target_networks() -> None:
    critic = critic_of(Valued())
    state, chunk = torch.tensor([[1.0, 9.0], [4.0, 0.0]]), torch.tensor([[2.0], [0.0]])
    assert critic.target_value(state, chunk).tolist() == [1, 2]


def test_the_best_candidate_has_the_highest_least_value() -> None:
    critic, state = critic_of(Valued()), torch.tensor([[3.0, -1.0], [0.0, 0.0]])
    act_BNKA = torch.tensor([[1.0, 2.0, 5.0], [-3.0, -1.0, -2.0]])[..., None, None]
    assert critic.best(state, act_BNKA).flatten().tolist() == [5, -1]  # least 1.5, 2 and 3; -1.5, -0.5 and -1


def test_the_target_moves_by_tau_of_the_way_to_the_critic() -> None:
    critic, t, zero = critic_of(tau=0.1, learning_rate=0.1), transitions(), torch.zeros(5)
    optimizer = critic.optimizer()
    critic.update(t, zero, optimizer)  # the first update copies
    before = [p.clone() for p in critic.target.parameters()]
    critic.update(t, zero, optimizer)
    for was, now, online in zip(before, critic.target.parameters(), critic.q.parameters(), strict=True):
        torch.testing.assert_close(now, 0.9 * was + 0.1 * online)
        assert not torch.equal(was, now) or not was.any()


def test_the_loss_is_the_squared_error_in_units_of_the_values_over_whole_chunks() -> None:
    critic, t = critic_of(start=50.0), transitions()
    q_EB, next_value = critic(t.state_BS, t.chunk_BX), torch.tensor([9.0, 5.0, 7.0, 20.0, 1000.0])
    metrics = critic.update(t, next_value, critic.optimizer())
    error_EB = (q_EB - t.reward_B - t.discount_B * next_value)[:, :4] / 25  # half of the start is the unit
    torch.testing.assert_close(metrics["critic_loss"], (error_EB**2).mean())
    torch.testing.assert_close(metrics["q"], q_EB.mean().detach())


def test_without_a_whole_chunk_there_is_nothing_to_learn() -> None:
    t = transitions()
    assert average(torch.ones(2, 5), t) == 1
    assert average(torch.ones(2, 5), replace(t, whole_B=torch.zeros(5, dtype=torch.bool))) == 0


def test_values_relative_to_the_batch_have_a_mean_size_of_one() -> None:
    critic, state = critic_of(), torch.randn(6, 2, generator=generator(1))
    chunk = torch.randn(6, 1, generator=generator(2))
    q_B, relative_B = critic(state, chunk).mean(0), critic.relative(state, chunk)
    assert relative_B.abs().mean().item() == pytest.approx(1)
    torch.testing.assert_close(relative_B, q_B / q_B.abs().mean())
    nothing = critic_of()
    nn.init.zeros_(nothing.q.weight[-1])
    nn.init.constant_(nothing.q.bias[-1], 1e-9)
    torch.testing.assert_close(nothing.relative(state, chunk), torch.full((6,), 1e-3))


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_implicit_learning_is_of_the_expectile_of_the_targets_and_of_rewards_and_next_values(tau: float) -> None:
    policy, t, critic = make(small(BCConfig), chain()), transitions(), critic_of(Valued(), start=50.0)
    value = state_value(policy, CriticConfig(width=8, depth=1))
    value.unit.fill_(4.0)
    optimizers = {"value": adamw(value, CriticConfig(learning_rate=0.1)), "critic": critic.optimizer()}
    advantage_B = (critic.target_value(t.state_BS, t.chunk_BX) - value(t.state_BS)[0]).detach()
    q_EB = critic(t.state_BS, t.chunk_BX).detach()
    metrics, found_B = update_implicit(critic, value, t, tau, optimizers)
    torch.testing.assert_close(found_B, advantage_B)
    weight_B = torch.where(advantage_B < 0, 1 - tau, tau)
    torch.testing.assert_close(metrics["value_loss"], (weight_B * (advantage_B / 4) ** 2)[:4].mean())
    target_B = t.reward_B + t.discount_B * value(t.next_BS)[0].detach()  # V after its step
    torch.testing.assert_close(metrics["critic_loss"], (((q_EB - target_B) / 25) ** 2)[:, :4].mean())


def test_values_of_states_start_as_those_of_actions() -> None:
    policy = make(small(BCConfig, chunk=2), chain())
    config = CriticConfig(width=8, discount=0.99, members=3)
    critic, value = Critic.of(policy, config), state_value(policy, config)
    start = policy.reward_statistics.initial_value(0.99)
    assert critic.q.start.item() == value.start.item() == pytest.approx(start)
    assert critic(torch.zeros(5, 2), torch.zeros(5, 2)).shape == (3, 5) and value(torch.zeros(5, 2)).shape == (1, 5)


@pytest.mark.parametrize("setting", [{"discount": 1.0}, {"discount": -0.1}, {"n_step": 0}, {"n_step": 10_001},
                                     {"width": 0}, {"depth": 0}, {"members": 0}, {"tau": -0.1}, {"tau": 1.1}], ids=str)
def test_settings_of_values_have_bounds(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        CriticConfig(**setting)


def test_the_smallest_and_largest_settings_are_taken() -> None:
    CriticConfig(discount=0, n_step=1, width=1, depth=1, members=1, tau=0)
    CriticConfig(discount=0.99999, n_step=10_000, width=100_000, depth=100, members=1000, tau=1)


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
        value_B = critic.target_value(t.state_BS, t.chunk_BX)
        critic.update(t, value_B[after], optimizer)
    size = float(np.sqrt((data.reward**2).mean()))
    expected = torch.tensor([1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3, 4 + 0.5 * 10, 10])  # the cut step repeats for ever
    torch.testing.assert_close(critic(t.state_BS, t.chunk_BX).mean(0).detach() * size, expected, rtol=0.1, atol=0.1)


def test_an_expectile_and_weights_by_hand() -> None:
    torch.testing.assert_close(expectile(torch.tensor([-2.0, -0.5, 0.5, 2.0]), 0.9),
                               torch.tensor([0.4, 0.025, 0.225, 3.6]))
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
