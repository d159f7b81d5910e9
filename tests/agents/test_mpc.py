"""Sampling-based control finds the best actions, and with a good prior it needs fewer samples."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.mpc import MPC, MPCConfig
from gentraj.randomness import Seeds, as_noise

LOW, HIGH = -np.ones(2, np.float32), np.ones(2, np.float32)


def quadratic(obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None) -> Tensor:
    """A simulator in which the best action of every step is the observation."""
    return -((act_BNTA - obs_BO[:, None, None]) ** 2).sum((2, 3))


def knowing(obs_BO: Tensor, goal_BG: Tensor | None, number: int, seeds: Seeds) -> Tensor:
    """A prior of two steps, close to the best actions."""
    return obs_BO[:, None, None] + 0.01 * as_noise(seeds, len(obs_BO)).normal(number, 2, obs_BO.shape[1])


def mpc(prior: Any = None, simulate: Any = quadratic, **settings: Any) -> MPC:
    agent = MPC(simulate, MPCConfig(**{"horizon": 3, **settings}), LOW, HIGH, prior)
    agent.reset(seed=[0, 1, 2])
    return agent


OBS = torch.tensor([[0.5, -0.8], [-0.3, 0.2], [0.0, 0.9]])


@pytest.mark.parametrize("settings", [{"method": "mppi", "temperature": 0.01, "spread": 0.2},
                                      {"method": "cem", "iterations": 6, "spread": 0.5, "samples": 600}])
def test_the_optimum_of_a_quadratic_is_found(settings: dict[str, Any]) -> None:
    agent = mpc(**{"samples": 200, **settings})
    for _ in range(15):  # each from the shifted solution of the one before
        act_BA = agent.act(OBS)
    torch.testing.assert_close(act_BA, OBS, rtol=0, atol=0.1)


@pytest.mark.parametrize("method", ["mppi", "cem"])
def test_no_decision_is_worse_than_the_one_before_where_the_best_alone_counts(method: Any) -> None:
    """The previous solution is one of the sequences that are simulated."""
    agent = mpc(method=method, samples=5, temperature=1e-6, elites=0.2)
    mean_BTA, last_B = torch.zeros(3, 3, 2), torch.full((3,), -torch.inf)
    for seed in range(10):
        mean_BTA = agent.solve(OBS, None, mean_BTA, [seed, seed + 100, seed + 200])
        return_B = quadratic(OBS, mean_BTA[:, None], None)[:, 0]
        assert (return_B >= last_B - 1e-6).all()
        last_B = return_B


def test_with_a_prior_the_first_tries_are_its_draws_and_few_are_enough() -> None:
    seen = []

    def watching(obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None) -> Tensor:
        seen.append(act_BNTA)
        return quadratic(obs_BO, act_BNTA, goal_BG)

    agent = mpc(knowing, watching, samples=4, temperature=1e-3, iterations=2, prior_fraction=0.5)
    act_BA = agent.act(OBS)
    first, second = seen
    assert first.shape == second.shape == (3, 2, 3, 2)
    torch.testing.assert_close(first[:, 1, :2], OBS[:, None].expand(3, 2, 2), rtol=0, atol=0.05)
    assert (first[:, 0] == 0).all()  # what was left of the previous solution: nothing
    assert (act_BA - OBS).abs().max() < 0.05 < (mpc(samples=4, temperature=1e-3).act(OBS) - OBS).abs().max()
    plain, none = mpc(samples=8).act(OBS), mpc(knowing, samples=8, prior_fraction=0).act(OBS)
    assert torch.equal(plain, none)


@pytest.mark.parametrize("prior", [None, knowing])
def test_an_episode_does_not_feel_those_beside_it(prior: Any) -> None:
    """Their number does not matter, nor how often the others begin anew."""
    def play(rows: slice, again: bool) -> Tensor:
        agent, seeds = mpc(prior, samples=8), [7, 8, 9][rows]
        agent.reset(seeds)
        acts = [agent.act(OBS[rows])]
        if again:
            agent.reset([7, 80, 90], torch.tensor([False, True, True]))
        return torch.stack([*acts, agent.act(OBS[rows])])

    alone = play(slice(0, 1), again=False)[:, 0]
    assert torch.equal(play(slice(0, 3), again=False)[:, 0], alone)
    assert torch.equal(play(slice(0, 3), again=True)[:, 0], alone)


@pytest.mark.parametrize("settings", [{"method": "mppi"}, {"method": "cem", "elites": 0.9}])
@pytest.mark.parametrize("worthless", [torch.nan, -torch.inf])
def test_a_sequence_whose_return_is_not_finite_counts_for_nothing(settings: dict[str, Any], worthless: float) -> None:
    """As where a simulator diverges; a single NaN made all actions NaN."""
    def diverging(obs_BO: Tensor, act_BNTA: Tensor, goal_BG: Tensor | None) -> Tensor:
        return torch.where(act_BNTA[..., 0, 0] > 0, worthless, act_BNTA[..., 0, 0])

    assert (mpc(simulate=diverging, samples=300, **settings).act(OBS)[:, 0] < -0.1).all()


@pytest.mark.parametrize(("gives", "message"), [
    (lambda obs, act, goal: torch.full(act.shape[:2], torch.nan), "none a finite one"),
    (lambda obs, act, goal: act.sum((2, 3))[..., None], r"returns of shape \(3, 64, 1\); \(3, 64\) is expected"),
    (lambda obs, act, goal: act.sum((2, 3)).flatten(), r"returns of shape \(192,\)")])
def test_returns_that_mean_nothing_are_refused(gives: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mpc(simulate=gives).act(OBS)
