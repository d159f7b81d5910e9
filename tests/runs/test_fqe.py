"""Fitted Q evaluation: the values of policies whose returns are known."""

import numpy as np
import pytest
import torch

from gentraj.runs.judge.fqe import Experience, FQEConfig, fitted_q_evaluation


def experience(*policies: float, discount: float = 0.5) -> Experience:
    """Steps in one state that is never left, whose reward is the action; each policy repeats one action."""
    act_M1 = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (512, 1))).float()
    state_M1, start_E1 = torch.zeros(512, 1), torch.zeros(4, 1)
    does = torch.tensor(policies)[:, None, None]
    return Experience(state_M1, act_M1, act_M1[:, 0], torch.full((512,), discount), state_M1,
                      does.expand(-1, 512, 1), start_E1, does.expand(-1, 4, 1))


def test_a_policy_is_worth_its_discounted_rewards() -> None:
    """The action c in each step is worth c / (1 - 0.5), and only c where each step ends the episode."""
    config = FQEConfig(updates=250, batch_size=64)
    assert fitted_q_evaluation(experience(-0.5, 0.0, 0.5), config) == pytest.approx([-1.0, 0.0, 1.0], abs=0.1)
    assert fitted_q_evaluation(experience(-0.5, 0.5, discount=0.0), config) == pytest.approx([-0.5, 0.5], abs=0.1)


def test_what_a_policy_is_worth_does_not_depend_on_those_beside_it() -> None:
    config = FQEConfig(updates=20, batch_size=32)
    same = fitted_q_evaluation(experience(0.3, 0.3, -0.9), config)
    assert same[0] == same[1] != same[2]
    assert fitted_q_evaluation(experience(0.3, 0.8), config)[0] == pytest.approx(same[0], rel=1e-4)
