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


def game(luck: tuple[float, ...], number: int = 2_000) -> Episodes:
    """Episodes of one step: actions around -0.6 pay `much` with a chance, else nothing, and those around 0.6 `more`
    with another one, which is worth less."""
    much, chance, more, other = luck
    rng = np.random.default_rng(0)
    act = (0.6 * rng.choice([-1, 1], number) + 0.1 * rng.normal(size=number)).clip(-1, 1)
    draw = rng.random(number)
    reward = np.where(act < 0, much * (draw < chance), more * (draw < other))
    yes, no = np.ones(number, bool), np.zeros(number, bool)
    return Episodes(rng.normal(size=(2 * number, 2)), act[:, None], reward, yes, no, np.ones(number, int))


SAFE = 1.0, 1.0, 3.0, 0.2  # what pays 1, and a gamble that seldom pays much: a mean of 0.6
SELDOM = 5.0, 0.25, 1.5, 0.6  # what seldom pays much, and a gamble that often pays a little: means of 1.25 and 0.9


@pytest.mark.parametrize("luck", [SAFE, SELDOM], ids=["safe", "seldom"])
@pytest.mark.parametrize("name", LEARN_FROM_REWARDS)
def test_a_policy_prefers_what_is_worth_more_to_what_may_pay_more_or_pays_more_often(
        name: str, luck: tuple[float, ...]) -> None:
    policy = make(small(name, **({"alpha": 0.1} if name in LOOSE else {})), data := game(luck))
    train(policy, data, 150)
    state_BS = torch.randn(200, 2, generator=generator(9))
    act_B = policy.eval().sample_actions(state_BS, [*range(200)])[:, 0, 0]
    assert (act_B < 0).float().mean() > 0.8
