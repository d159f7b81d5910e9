"""`Gaussian`: what it learns has a closed form, and its density is the normal one."""

import math
import re
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from contract import CONDITIONS, SPEC, batch
from scipy.stats import norm
from torch import Tensor

from gentraj.models.conditioning import ConditionMix
from gentraj.models.gaussian import Gaussian, GaussianConfig, soft_clamp
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import RowNoise, generator
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, Condition, Guide, SamplingOptions, TrajectorySpec

CELL = TrajectorySpec(obs_dim=2, act_dim=2, horizon=1)  # a policy's window: one state and one action
TINY = ResidualMLPConfig(16, 1, 0)
POLICY = ConditionMix(start=0, goal=0, observations=1)


def make(spec: TrajectorySpec = SPEC, normalizer: Normalizer | None = None, **changes: object) -> Gaussian:
    torch.manual_seed(0)
    conditioning = cast(ConditionMix | None, changes.pop("conditioning", None))
    config = GaussianConfig(**{"network": TINY, "ema": 0.95, **changes})  # type: ignore[arg-type]
    return Gaussian(spec, config, normalizer or Normalizer.identity(spec.dim), conditioning=conditioning)


def fit(model: Gaussian, data: Callable[[torch.Generator], Batch], steps: int, guide: Guide | None = None) -> Gaussian:
    optimizers = model.optimizers()
    for step in range(steps):
        rng = generator(step)
        model.update(TrainingStep(data(rng), optimizers, rng), guide=guide)
    return model


def windows(obs: Tensor, act: Tensor, weight_B: Tensor | None = None) -> Batch:
    """(B, O) and (B, A) -> windows of one row."""
    x = torch.cat([obs, act], 1)[:, None]
    return Batch(x, torch.ones_like(x, dtype=torch.bool), weight_B=weight_B)


def actions(model: Gaussian, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, A) of the actions in these states."""
    mean, sigma = model.predict(Condition.empty(model.spec, len(obs)).with_obs(0, obs))
    return mean[:, 0, model.spec.obs_dim :], sigma[:, 0, model.spec.obs_dim :]


def test_a_linear_gaussian_policy_is_recovered() -> None:
    """a ~ N(W s + b, diag(0.3, 0.2 exp(s_0 / 2))^2): the mean within 3 % of its spread, the deviations within 10 %."""
    weight, bias = torch.tensor([[0.8, -0.5], [0.3, 1.2]]), torch.tensor([0.4, -0.6])

    def truth(s: Tensor) -> tuple[Tensor, Tensor]:
        return s @ weight.T + bias, torch.stack([torch.full_like(s[:, 0], 0.3), 0.2 * (s[:, 0] / 2).exp()], 1)

    def data(rng: torch.Generator) -> Batch:
        s = 2 * torch.rand(256, 2, generator=rng) - 1
        mean, sigma = truth(s)
        return windows(s, mean + sigma * torch.randn(mean.shape, generator=rng))

    scales = Normalizer(torch.tensor([0.1, 0.0, 0.5, -0.5]), torch.tensor([1.0, 1.2, 2.0, 0.5]))
    model = fit(make(CELL, scales, conditioning=POLICY, learning_rate=1e-2, ema=0.99), data, 600)
    s = 2 * torch.rand(500, 2, generator=generator(-1)) - 1
    (mean, sigma), (true_mean, true_sigma) = actions(model, s), truth(s)
    assert (((mean - true_mean) ** 2).mean(0).sqrt() < 0.03 * true_mean.std(0)).all()
    assert ((sigma / true_sigma).log() ** 2).mean(0).sqrt().max() < 0.1


def constant(act: Tensor, weight_B: Tensor | None = None) -> Callable[[torch.Generator], Batch]:
    """Returns a function that makes batches with the same state and these actions."""
    return lambda _: windows(torch.zeros(len(act), 2), act, weight_B)


STATE = torch.zeros(1, 2)


def test_with_a_fixed_spread_the_mean_minimises_the_squared_error() -> None:
    """This holds for skewed data too, whose mode lies elsewhere; the spread is the given one."""
    act = torch.rand(64, 2, generator=generator(0)) ** 3
    scales = Normalizer(torch.zeros(4), torch.tensor([1.0, 1.0, 2.0, 0.5]))
    model = make(CELL, scales, conditioning=POLICY, spread=0.3, learning_rate=1e-2)
    mean, sigma = actions(fit(model, constant(act), 150), STATE)
    torch.testing.assert_close(mean[0], act.mean(0), atol=0.005, rtol=0)
    torch.testing.assert_close(sigma[0], 0.3 * torch.tensor([2.0, 0.5]))


def test_a_guide_moves_the_mean_by_its_slope_times_the_variance() -> None:
    """The minimum of the mean over two entries of (a - mu)^2 / (2 sigma^2), minus k a_0, is at mu + 2 k sigma^2."""
    act, spread, k = torch.randn(64, 2, generator=generator(0)) / 3, 0.4, 0.5
    model = make(CELL, conditioning=POLICY, spread=spread, learning_rate=1e-2)
    mean, _ = actions(fit(model, constant(act), 150, lambda x: k * x[:, 0, 2]), STATE)
    torch.testing.assert_close(mean[0], act.mean(0) + torch.tensor([2 * k * spread**2, 0.0]), atol=0.005, rtol=0)


def handset(scales: Normalizer, **changes: object) -> tuple[Gaussian, np.ndarray, np.ndarray]:
    """A model whose network returns the same whatever it is shown; offset and deviation, (H, D) each, normalised."""
    model, (mean, raw) = make(normalizer=scales, **changes), torch.randn(2, 8, 5, generator=generator(3))
    with torch.no_grad():
        for network in (model.network, model.ema.module):
            last = network.out[-1]  # type: ignore[union-attr, index]
            last.weight.zero_()
            last.bias.copy_(torch.cat([mean, raw], -1).flatten())
    low, high = model.config.log_sigma
    raw = raw.double().numpy()
    log_sigma = low + np.log1p(np.exp(high - np.log1p(np.exp(high - raw)) - low))
    return model, mean.double().numpy(), np.exp(log_sigma)


SCALES = Normalizer(torch.tensor([0.5, -1.0, 3.0, 0.0, 10.0]), torch.tensor([2.0, 0.1, 1.0, 5.0, 0.5]))


@pytest.mark.parametrize("kind", CONDITIONS)
def test_the_density_is_the_normal_one_in_environment_units(kind: str) -> None:
    """That of scipy, over the entries that are not known; around the straight way between those that are."""
    model, offset, sigma = handset(SCALES)
    condition = CONDITIONS[kind](Condition.empty(SPEC, 4))
    x = torch.randn(4, 8, 5, generator=generator(5)) * SCALES.scale_D + SCALES.shift_D
    shift, scale = SCALES.shift_D.double().numpy(), SCALES.scale_D.double().numpy()
    known, values = condition.mask_BHD[0].numpy(), condition.values_BHD[0].double().numpy()
    rows = [np.flatnonzero(known[:, d]) for d in range(5)]
    straight = np.stack([np.interp(range(8), rows[d], (values[rows[d], d] - shift[d]) / scale[d]) if len(rows[d])
                         else np.zeros(8) for d in range(5)], 1)
    log_p = norm.logpdf(x.double().numpy(), (straight + offset) * scale + shift, sigma * scale)
    found = model.log_prob(torch.where(condition.mask_BHD, torch.nan, x), condition)  # known entries are not looked at
    np.testing.assert_allclose(found.numpy(), np.where(known, 0, log_p).sum((1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 3.0, 0.0)])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_loss_is_the_weighted_mean_over_real_entries_that_are_not_known(start: float, weights: tuple) -> None:
    """In nats, normalised; what is padded or known counts neither above nor below the line."""
    model, mean, sigma = handset(Normalizer.identity(5), conditioning=ConditionMix(start=start, goal=0))
    data, free = batch((8, 5, 2, 1)), batch((8, 5, 2, 1)).mask_BHD.clone()
    x = data.x_BHD.double().numpy()
    if start:  # the mean is given as the difference from the straight one, which stays there
        free[:, 0, :3], mean = False, mean + np.pad(x[:, :1, :3], ((0, 0), (0, 0), (0, 2)))
    nats = -norm.logpdf(x, mean, sigma) * np.reshape(weights, (4, 1, 1))
    data = Batch(data.x_BHD, data.mask_BHD, weight_B=torch.tensor(weights))
    loss = model.update(TrainingStep(data, model.optimizers(), generator(0)))["loss"]
    assert loss.item() == pytest.approx(nats[free.numpy()].mean(), rel=1e-5)


def test_samples_are_of_that_density_and_deviate_by_the_seeds_noise() -> None:
    model, condition = handset(SCALES)[0], CONDITIONS["goal"](Condition.empty(SPEC, 3))
    free, z = ~condition.mask_BHD, RowNoise([4, 5, 6]).normal(8, 5)
    mean, sigma = model.predict(condition)
    assert torch.equal(mean[~free], condition.values_BHD[~free]) and not sigma[~free].any()
    for temperature in (0.0, 0.5, 1.0):
        x = model.sample(condition, seed=[4, 5, 6], options=SamplingOptions(temperature=temperature))[:, 0]
        torch.testing.assert_close(x, mean + temperature * sigma * z * free, rtol=1e-5, atol=1e-5)
    terms = -(z**2) / 2 - sigma.where(free, torch.ones(())).log() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(model.log_prob(x, condition), (terms * free).sum((1, 2)), rtol=1e-4, atol=1e-3)
    distance = model.ood_score(x, condition, [0, 0, 0])
    torch.testing.assert_close(distance, (z**2 * free).mean(-1), rtol=1e-3, atol=1e-4)


def test_density_and_moments_are_differentiable() -> None:
    model, condition = handset(SCALES)[0], Condition.empty(SPEC, 3)
    x = (torch.randn(3, 8, 5, generator=generator(5)) * SCALES.scale_D + SCALES.shift_D).requires_grad_()
    uphill = torch.autograd.grad(model.log_prob(x, condition).sum(), x)[0]
    mean, sigma = model.predict(condition)
    torch.testing.assert_close(uphill, (mean - x) / sigma**2, rtol=1e-3, atol=1e-3)
    start = torch.zeros(3, 3, requires_grad=True)
    make().predict(Condition.empty(SPEC, 3).with_obs(0, start))[0].sum().backward()
    assert start.grad is not None and start.grad.all()


def test_the_soft_clamp_stays_between_its_bounds_and_rises_everywhere() -> None:
    x = torch.linspace(-30, 30, 2001, dtype=torch.float64, requires_grad=True)
    y = soft_clamp(x, -5.0, 1.0)
    slope = torch.autograd.grad(y.sum(), x)[0]
    assert (y >= -5).all() and (y <= 1 + math.exp(-6)).all() and (slope > 0).all()
    assert soft_clamp(torch.tensor(-2.0), -5.0, 1.0).item() == pytest.approx(-2, abs=0.01)


@pytest.mark.parametrize("wrong", [{"spread": 0.0}, {"spread": "wide"}, {"log_sigma": (1.0, -5.0)}, {"best_of": 0}])
def test_settings_out_of_range_are_refused_by_name(wrong: dict) -> None:
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=re.escape(f"GaussianConfig.{name} is {value!r}; ")):
        GaussianConfig(**wrong)
