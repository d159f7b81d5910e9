"""A critic that learns the distribution of returns by quantile regression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_policies import bandit, make, small, train

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.critic import Critic, CriticConfig, quantile_loss
from gentraj.agents.policies.policy import Transition
from gentraj.config import from_json, to_json
from gentraj.randomness import generator

WITH_Q = [kind for kind in POLICIES.configs if isinstance(kind().critic, CriticConfig)]


def critic_of(start: float = 0.0, **settings: Any) -> Critic:
    torch.manual_seed(0)
    return Critic(1, 1, CriticConfig(width=16, **settings), start)


def test_the_loss_by_hand() -> None:
    q_EBN, target_BM = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[0.5, 5.0]])
    # levels 1/4 and 3/4; errors 0.5 and 5 of the first quantile, -1.5 and 3 of the second
    by_hand = (0.25 * 0.125 + 0.25 * 4.5 + 0.25 * 1.0 + 0.75 * 2.5) / 4
    assert quantile_loss(q_EBN, target_BM).item() == pytest.approx(by_hand)


def test_the_loss_is_least_at_the_quantiles() -> None:
    target_BM = torch.arange(100.0)[None]
    q_EBN = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([q_EBN], 2.0)
    for i in range(400):
        optimizer.param_groups[0]["lr"] = 2.0 * (1 - i / 400)
        optimizer.zero_grad()
        quantile_loss(q_EBN, target_BM).sum().backward()
        optimizer.step()
    torch.testing.assert_close(q_EBN[0, 0].detach(), torch.tensor([12.0, 37.0, 62.0, 87.0]), rtol=0, atol=1.0)


def lottery(number: int, seed: int) -> Transition:
    """Steps of a Markov chain with two states: from 0, with a reward of 0, to 1; from 1 to the end, with a reward of
    -10, 0 or 20 with the probabilities 1/4, 1/2 and 1/4."""
    rng = generator(seed)
    state_B1 = torch.randint(2, (number, 1), generator=rng).float()
    prize_B = torch.tensor([-10.0, 0.0, 0.0, 20.0])[torch.randint(4, (number,), generator=rng)]
    last_B = state_B1[:, 0] == 1
    return Transition(state_B1, torch.zeros(number, 1), torch.ones(number, 1, dtype=torch.bool), prize_B * last_B,
                      torch.ones(number, 1), 0.5 * ~last_B, torch.ones(number, dtype=torch.bool),
                      torch.zeros(number, dtype=torch.long))


def learnt(**settings: Any) -> Critic:
    critic = critic_of(members=1, tau=0.05, learning_rate=1e-2, **settings)
    optimizer = critic.optimizer()
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 500)
        t = lottery(256, step)
        critic.update(t, critic.next_return(t.next_BS, torch.zeros(256, 1)), optimizer)
    return critic


def test_the_returns_of_a_chain_have_their_known_distribution_and_the_value_of_squared_errors() -> None:
    critic, mean = learnt(quantiles=16), learnt()
    x_RI = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found_RN = critic.q.outputs(x_RI)[0].detach().sort(1).values
    known_N = torch.tensor([-10.0] * 4 + [0.0] * 8 + [20.0] * 4)
    for row_N, discount in zip(found_RN, (0.5, 1.0), strict=True):  # a step earlier, the return is half as large
        inner = [1, 2, 5, 6, 7, 8, 9, 10, 13, 14]  # quantiles not beside a jump
        torch.testing.assert_close(row_N[inner], discount * known_N[inner], rtol=0, atol=1.5)
    value_R = critic(x_RI[:, :1], x_RI[:, 1:])[0].detach()
    torch.testing.assert_close(value_R, mean(x_RI[:, :1], x_RI[:, 1:])[0].detach(), rtol=0, atol=0.6)
    torch.testing.assert_close(value_R, torch.tensor([1.25, 2.5]), rtol=0, atol=0.6)


def test_the_member_with_the_least_mean_gives_its_quantiles() -> None:
    critic, state, chunk = critic_of(quantiles=5, members=3), torch.linspace(-3, 3, 9)[:, None], torch.zeros(9, 1)
    network: Any = critic.target.module
    q_EBN = network.outputs(torch.cat([state, chunk], 1))
    found_BN = critic.next_return(state, chunk)
    assert found_BN.shape == (9, 5)
    torch.testing.assert_close(found_BN.mean(1), critic.target_value(state, chunk))
    for b in range(9):
        assert torch.equal(found_BN[b], q_EBN[q_EBN[:, b].mean(-1).argmin(), b])
    torch.testing.assert_close(critic(state, chunk), critic.q.outputs(torch.cat([state, chunk], 1)).mean(-1))


def test_without_quantiles_the_next_return_is_the_least_value() -> None:
    critic, state, chunk = critic_of(start=50.0), torch.linspace(-3, 3, 9)[:, None], torch.zeros(9, 1)
    assert torch.equal(critic.next_return(state, chunk), critic.target_value(state, chunk)[:, None])


def test_the_targets_of_quantiles_reach_the_critic_and_nothing_else() -> None:
    critic, t = critic_of(quantiles=4), lottery(8, 0)
    next_return = critic.next_return(t.next_BS, torch.zeros(8, 1))
    assert not next_return.requires_grad
    critic.update(t, next_return, critic.optimizer())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.q.parameters())
    assert all(p.grad is None for p in critic.target.parameters())


@pytest.mark.parametrize("kind", WITH_Q)
def test_every_policy_with_a_q_learns_from_quantiles(kind: type) -> None:
    config = small(kind)
    policy: Any = make(replace(config, critic=replace(config.critic, quantiles=4)), data := bandit(100))
    assert policy.critic.q.outputs(torch.zeros(3, 3)).shape == (2, 3, 4)
    metrics = train(policy, data, 2)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in metrics.values())
    train(policy.double(), data, 1)


def test_settings_of_the_first_release_have_no_quantiles() -> None:
    former = {key: value for key, value in to_json(CriticConfig()).items() if key != "quantiles"}
    assert from_json(CriticConfig, former) == CriticConfig()
    with pytest.raises(ValueError, match="quantiles"):
        CriticConfig(quantiles=0)
