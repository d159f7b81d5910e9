"""Actors that maximise a critic: the mathematics of their pulls, and which networks their gradients reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_policies import bandit, make, small
from torch import Tensor

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.policy import Transition
from gentraj.data import Windows
from gentraj.randomness import generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, SamplingOptions


def made(name: str, **changes: Any) -> tuple[Any, Transition]:
    """A small policy for `bandit`, whose states have two entries and whose actions have one, and a batch of it."""
    policy = make(small(name, **changes), data := bandit(64))
    return policy, policy.transition(Windows(data, policy.spec).batch(0, 0, 32), 0.9)


# -- the recipe


def test_the_next_action_is_the_best_of_the_backup_with_clipped_noise() -> None:
    policy, t = made("td3bc", smoothing=0.5, backup=3)
    seen: list[Tensor] = []
    policy.next_actions = lambda *_: torch.linspace(-0.9, 0.3, 3)[:, None, None].expand(32, 3, 1, 1)
    policy.critic.best = lambda state_BS, act_BNKA: act_BNKA[:, 2]
    policy.critic.next_return = lambda state_BS, act_BNKA: seen.append(act_BNKA.flatten(1)) or torch.zeros(32)
    policy.critic_loss(t, generator(3))
    noise_B1 = torch.randn(32, 1, 1, generator=generator(3)).clamp(-2.5, 2.5)[..., 0]
    torch.testing.assert_close(seen[0], (0.3 + 0.5 * noise_B1).clamp(-1, 1))


def test_the_losses_of_an_actor_reach_the_actor_and_nothing_else() -> None:
    policy, t = made("fql")
    loss, chunk_BX = policy.distillation(t, policy.noise(t.state_BS, generator(1)))
    x_BHD = torch.zeros(len(t.state_BS), 1, policy.spec.dim)
    step = TrainingStep(Batch(x_BHD, x_BHD == 0), {}, generator(2))
    (loss - policy.value(t.state_BS, chunk_BX, step).mean()).backward()
    reached = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached and all(name.startswith("network.") for name in reached)
    assert all(p.requires_grad for p in policy.critic.q.parameters())


def test_a_decision_is_one_call_and_a_sampler_is_refused() -> None:
    policy, _ = made("fql")
    actor = Actor(policy, -np.ones(1), np.ones(1))
    actor.act(torch.zeros(3, 2))
    assert actor.network_calls == 1 and policy.sampling() == "one call of the actor"
    with pytest.raises(ValueError, match="one call of its actor, which has no sampler"):
        policy.sample_actions(torch.zeros(1, 2), [1], SamplingOptions(sampler="heun"))
