"""Values average luck: of a safe action and a gamble, policies that learn from rewards take the one worth more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_policies import make, small, train

from gentraj.agents.policies import PRESETS
from gentraj.data import Episodes
from gentraj.randomness import generator

LEARN_FROM_REWARDS = [name for name, (_, config) in PRESETS.items() if config.critic is not None]
LOOSE = ("fql", "qc-fql")  # their pull leaves each noise at one of two actions that lie apart


def gamble(number: int = 2_000) -> Episodes:
    """Episodes of one step: actions around -0.6 pay 1, those around 0.6 pay 3 with probability 0.2, which is less."""
    rng = np.random.default_rng(0)
    act = (0.6 * rng.choice([-1, 1], number) + 0.1 * rng.normal(size=number)).clip(-1, 1)
    reward = np.where(act < 0, 1.0, 3.0 * (rng.random(number) < 0.2))
    yes, no = np.ones(number, bool), np.zeros(number, bool)
    return Episodes(rng.normal(size=(2 * number, 2)), act[:, None], reward, yes, no, np.ones(number, int))


@pytest.mark.parametrize("name", LEARN_FROM_REWARDS)
def test_a_policy_prefers_what_is_worth_more_to_what_may_pay_more(name: str) -> None:
    policy = make(small(name, **({"alpha": 0.1} if name in LOOSE else {})), data := gamble())
    train(policy, data, 150)
    state_BS = torch.randn(200, 2, generator=generator(9))
    act_B = policy.eval().sample_actions(state_BS, [*range(200)])[:, 0, 0]
    assert (act_B < 0).float().mean() > 0.9
