"""Samples of priors, log densities of actions and their scores, all in environment units."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.policies import POLICIES
from gentraj.agents.policies.bc import BCConfig
from gentraj.agents.policies.fql import FQLConfig
from gentraj.agents.policies.iql import IQLConfig
from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.swift import SwiftConfig
from gentraj.agents.prior import log_prob, policy_prior, score
from gentraj.data import ContextConfig, Episodes
from gentraj.families import ACTION_MODELS
from gentraj.models.gaussian import Gaussian, log_density
from gentraj.networks import ResidualMLPConfig

SMALL = ResidualMLPConfig(width=16, depth=1, frequencies=0)
SCALE, SHIFT = torch.tensor([3.0, 0.25]), torch.tensor([2.0, 0.0])  # of the actions: from -1 to 5, -0.25 to 0.25
OBS = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.1, 0.0]])


def episodes() -> Episodes:
    """Episodes of three observations, whose actions fill their range."""
    rng, number = np.random.default_rng(0), 60
    act = SHIFT.numpy() + SCALE.numpy() * rng.uniform(-1, 1, (2 * number, 2))
    act[:2] = SHIFT.numpy() + SCALE.numpy() * [[-1, -1], [1, 1]]
    cut = np.tile([False, True], number)
    return Episodes(rng.normal(size=(3 * number, 3)), act, rng.normal(size=2 * number), np.zeros_like(cut), cut,
                    np.full(number, 2))


def make(config: Any) -> Policy:
    torch.manual_seed(0)
    config = replace(config, model=config.model.with_network(SMALL))
    return POLICIES.made_of(config)(config, StateActionScales.fit(episodes(), ContextConfig()))


def cloned(family: str, chunk: int = 2) -> Any:
    return make(BCConfig(ACTION_MODELS[family], chunk=chunk))


def actions(count: int = 2, chunk: int = 2) -> Tensor:
    return SHIFT + SCALE * torch.randn(count, chunk, 2, generator=torch.Generator().manual_seed(1))


def exact(policy: Any, mean: float, spread: float) -> None:
    """Make a policy's model denoise as for normalised actions N(mean, spread^2), or mean + 0.25 with a context."""
    path = policy.model.model.path

    def denoiser(values: Tensor, mask: Tensor, context: Tensor | None = None, *, clipped: bool = True) -> Any:
        about = mean if context is None else mean + 0.25

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = path.alpha(t), path.sigma(t)
            gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
            return torch.where(mask, values, about + gain * (x - alpha * about))

        return denoise

    policy.model.model.denoise = denoiser


# -- densities


def test_a_gaussian_s_log_density_is_the_closed_one_with_the_change_of_scale() -> None:
    policy, act_BKA = cloned("gaussian"), actions()
    assert torch.equal(policy.scales.act.scale_D, SCALE) and isinstance(policy.model.model, Gaussian)
    mean, sigma = policy.model.model.predict(policy.model.condition(policy.scales.state(OBS, None)))
    of_each = log_density((act_BKA - SHIFT) / SCALE, mean[..., 3:], sigma[..., 3:].log()) - SCALE.log()
    torch.testing.assert_close(log_prob(policy, OBS, act_BKA), of_each.sum((1, 2)))


@pytest.mark.parametrize("family", ["gaussian", "flow"])
def test_a_density_of_actions_in_environment_units_integrates_to_one(family: str) -> None:
    policy = cloned(family, chunk=1)
    a, b = (torch.linspace(-1, 1, 41) * 6 * scale + shift for scale, shift in zip(SCALE, SHIFT, strict=True))
    act_BKA = torch.cartesian_prod(a, b)[:, None]
    total = log_prob(policy, OBS[:1].expand(len(act_BKA), -1), act_BKA, steps=16).exp().sum()
    assert float(total * (a[1] - a[0]) * (b[1] - b[0])) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("family", ["diffusion", "flow"])
def test_density_and_score_of_known_actions_are_the_closed_ones(family: str) -> None:
    """Normalised actions are N(0.5, 0.4^2), and so at time t N(0.5 alpha, 0.4^2 alpha^2 + sigma^2)."""
    policy, act_BKA = cloned(family), actions()
    exact(policy, 0.5, 0.4)
    x = (act_BKA - SHIFT) / SCALE
    closed_B = (log_density(x, torch.tensor(0.5), torch.tensor(0.4).log()) - SCALE.log()).sum((1, 2))
    torch.testing.assert_close(log_prob(policy, OBS, act_BKA, steps=32), closed_B, rtol=1e-3, atol=1e-2)
    for t in (0.1, 0.5, 1.0):
        path = policy.model.model.path
        alpha, sigma = (float(f(torch.tensor([t]))) for f in (path.alpha, path.sigma))
        closed = -(x - 0.5 * alpha) / (0.16 * alpha**2 + sigma**2) / SCALE
        torch.testing.assert_close(score(policy, OBS, act_BKA, t), closed, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["gaussian", "diffusion"])
def test_an_action_that_never_varies_changes_neither_density_nor_score(family: str) -> None:
    policy, act_BKA, elsewhere = cloned(family), actions(), torch.tensor([0.0, 0.3])
    policy.scales.act.scale_D[1] = 1e-6  # as `StateActionScales.fit` makes it
    if family == "diffusion":
        exact(policy, 0.5, 0.4)
    expected = log_prob(policy, OBS, torch.cat([act_BKA[..., :1], 0 * act_BKA[..., 1:]], -1), steps=16)
    assert torch.equal(log_prob(policy, OBS, act_BKA + elsewhere, steps=16), expected)
    if family == "diffusion":
        x_BK2 = torch.stack([(act_BKA[..., 0] - SHIFT[0]) / SCALE[0], torch.zeros(2, 2)], -1)
        closed_BK2 = log_density(x_BK2, torch.tensor(0.5), torch.tensor(0.4).log()) - torch.stack(
            [SCALE[0].log(), torch.tensor(0.0)])
        torch.testing.assert_close(expected, closed_BK2.sum((1, 2)), rtol=1e-2, atol=2e-2)
        score_BKA = score(policy, OBS, act_BKA, 0.5)
        assert torch.equal(score(policy, OBS, act_BKA + elsewhere, 0.5), score_BKA)
        assert not score_BKA[..., 1].any() and score_BKA[..., 0].all()


# -- draws


@pytest.mark.parametrize("config", [IQLConfig(), SwiftConfig(), FQLConfig()])
def test_a_policy_with_a_model_is_a_prior_of_its_chunks(config: Any) -> None:
    """Samples are inside the data's bounds, and those of a state depend on its own seed."""
    sample_prior = policy_prior(make(replace(config, chunk=3)))
    act_BNKA = sample_prior(OBS, None, 4, [5, 6])
    assert act_BNKA.shape == (2, 4, 3, 2)
    assert (((act_BNKA - SHIFT) / SCALE).abs() <= 1 + 1e-6).all()
    assert (act_BNKA.std(1).amax((1, 2)) > 0).all()  # an entry of theirs may lie at its bound
    # a goal it was not taught is no news
    assert torch.equal(sample_prior(OBS[1:], torch.zeros(1, 2), 4, [6]), act_BNKA[1:])
