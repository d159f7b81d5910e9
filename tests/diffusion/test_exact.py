"""With an exact denoiser, every sampler on every path gives back the distribution that it was made from."""

import math
from functools import partial

import pytest
import torch
from oracle import DOUBLE, GAUSSIAN, MIXTURE, TO_NOISE, moments, stream
from torch import Tensor

from gentraj.diffusion.paths import PATHS, NoisePath
from gentraj.diffusion.samplers import SAMPLERS, Sampler

SAMPLES = 4000


def quadratic(steps: int) -> Tensor:
    return (1 - torch.arange(steps + 1, dtype=DOUBLE) / steps) ** 2


def assert_gaussian(sampler: Sampler, path: NoisePath) -> None:
    """12 correlated dimensions, standard deviations from 0.18 to 1, from noise as a model starts from.

    Exact moments, within what 4000 samples could tell (4.5 standard errors): a mean of 7 % of the standard deviation,
    a variance of 10 %.
    """
    times = quadratic(200)
    mean, variances = moments(sampler, GAUSSIAN, path, times, path.sigma(times[:1]))
    deviation = GAUSSIAN.covariance.diag().sqrt()
    assert ((mean - GAUSSIAN.mean) / deviation).abs().max() < 4.5 / math.sqrt(SAMPLES)
    axes = GAUSSIAN.axes_KDD[0]
    off = axes @ variances.diag() @ axes.T - GAUSSIAN.covariance
    assert (off / deviation / deviation[:, None]).abs().max() < 4.5 * math.sqrt(2 / SAMPLES)
    assert (variances / GAUSSIAN.variances_KD[0] - 1).abs().max() < 4.5 * math.sqrt(2 / SAMPLES)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "unipc"])
def test_half_of_the_noise_may_be_added(sampler: str) -> None:
    assert_gaussian(partial(SAMPLERS[sampler], eta=0.5), PATHS["edm"]())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("path", TO_NOISE)
def test_a_mixture_of_five(path: str, sampler: str) -> None:
    """Mean, covariance and the components' weights within 4.5 standard errors."""
    where, times, normal = PATHS[path](), quadratic(100), stream(SAMPLES, 2, seed=5)
    x = SAMPLERS[sampler](MIXTURE.denoiser(where), where.sigma(times[:1]) * normal(), times, where, normal)
    moment = (x[:, :, None] * x[:, None, :]).flatten(1)
    second = (MIXTURE.covariance + torch.outer(MIXTURE.mean, MIXTURE.mean)).flatten()
    weights = MIXTURE.weights_K
    for found, expected, deviation in ((x.mean(0), MIXTURE.mean, x.std(0)), (moment.mean(0), second, moment.std(0)),
                                       (MIXTURE.shares(x), weights, (weights * (1 - weights)).sqrt())):
        assert ((found - expected) / deviation).abs().max() < 4.5 / math.sqrt(SAMPLES)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_temperature_scales_a_gaussian_about_its_mean(sampler: str, temperature: float) -> None:
    """All noise times tau, as `Diffusion.sample` does it: N(m, C) becomes N(m, tau^2 C), with noise on the way or not.

    For a Gaussian a sample is affine in all the noise it is made of, and without noise it is the mean.
    """
    path, times = PATHS["flow"](), quadratic(20)

    def sample(temperature: float) -> Tensor:
        normal = stream(100, 12)
        noise = lambda: temperature * normal()  # noqa: E731
        return SAMPLERS[sampler](GAUSSIAN.denoiser(path), noise(), times, path, noise)

    expected = GAUSSIAN.mean + temperature * (sample(1.0) - GAUSSIAN.mean)
    torch.testing.assert_close(sample(temperature), expected, rtol=1e-9, atol=1e-9)
