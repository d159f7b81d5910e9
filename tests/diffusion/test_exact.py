"""With an exact denoiser, every sampler on every path gives back the distribution that it was made from."""

import math

import pytest
import torch
from oracle import DOUBLE, GAUSSIAN, MIXTURE, TO_NOISE, stream
from torch import Tensor

from gentraj.diffusion.paths import PATHS
from gentraj.diffusion.samplers import NOISELESS, SAMPLERS

SAMPLES = 4000


def quadratic(steps: int) -> Tensor:
    return (1 - torch.arange(steps + 1, dtype=DOUBLE) / steps) ** 2


# Each sampler on every second path, and on one path with half of the noise that it can add.
CASES = [(path, name, {}) for i, path in enumerate(TO_NOISE) for j, name in enumerate(SAMPLERS) if (i + j) % 2]


@pytest.mark.parametrize(("path", "sampler", "options"), [
    *CASES, *(("edm", name, {"eta": 0.5}) for name in SAMPLERS if name not in NOISELESS)])
def test_a_mixture_of_five(path: str, sampler: str, options: dict[str, float]) -> None:
    """Mean, covariance and the components' weights within 4.5 standard errors."""
    where, times, normal = PATHS[path](), quadratic(100), stream(SAMPLES, 2, seed=5)
    x = SAMPLERS[sampler](MIXTURE.denoiser(where), where.sigma(times[:1]) * normal(), times, where, normal, **options)
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
