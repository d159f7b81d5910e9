"""What every sampler keeps to, whatever the path, the grid and the denoiser."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracle import DOUBLE, held, normals, predicted, stream
from torch import Tensor

from gentraj.diffusion import DiffusionConfig
from gentraj.diffusion.paths import PATHS, sampling_times
from gentraj.diffusion.samplers import NOISELESS, SAMPLERS
from gentraj.models.sampling import Denoise

pytestmark = pytest.mark.filterwarnings("ignore:euler-maruyama is unstable")  # with a few long steps
SHAPE = (4, 8, 3)
CALLS = {"ddim": 1, "euler": 1, "heun": 2, "unipc": 1}  # denoisings in a step but the last
class Watched:
    """A denoiser that remembers what it answered."""

    def __init__(self, denoise: Denoise):
        self.denoise, self.answers = denoise, list[Tensor]()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.answers.append(self.denoise(x, t))
        return self.answers[-1]


def floats(seed: int = 0) -> Callable[[], Tensor]:
    normal = stream(*SHAPE, seed=seed)
    return lambda: normal().float()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("path", PATHS)
def test_the_result_is_the_last_denoised_x0(path: str, sampler: str) -> None:
    where, normal = PATHS[path](), floats()
    for grid, steps in (("uniform", 1), ("quadratic", 2), ("karras", 7)):
        denoise = Watched(predicted(where, "edm"))
        times = sampling_times(where, steps, grid)
        x = SAMPLERS[sampler](denoise, where.sigma(times[:1]) * normal(), times, where, normal)
        assert torch.equal(x, denoise.answers[-1])
        if sampler in CALLS:
            assert len(denoise.answers) == CALLS[sampler] * (steps - 1) + 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("path", PATHS)
def test_held_entries_come_back_as_they_are(path: str, sampler: str) -> None:
    where, values, normal = PATHS[path](), normals(*SHAPE, seed=9).float(), floats()
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.5
    times = sampling_times(where, 5)
    x = SAMPLERS[sampler](held(predicted(where, "edm"), values, mask), normal(), times, where, normal)
    assert torch.equal(x[mask], values[mask]) and (x != values)[~mask].all()


@pytest.mark.parametrize("sampler", ["euler", "heun", "unipc"])
def test_noise_is_refused_by_a_sampler_of_the_ode_alone(sampler: Any) -> None:
    with pytest.raises(ValueError, match=rf"eta is 0\.5; {sampler} adds no noise, give 0"):
        DiffusionConfig(sampler=sampler, eta=0.5)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_network_is_called_at_the_levels_that_it_was_trained_at(path: str, sampler: str) -> None:
    """However much noise is added on the way."""
    where, seen, levels, normal = PATHS[path](20), [], torch.arange(1, 21) / 20, floats()
    eta = 0.0 if sampler in NOISELESS else 1.0

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(x)

    for steps in (5, 20):
        times = sampling_times(where, steps)
        SAMPLERS[sampler](denoise, where.sigma(times[:1]) * normal(), times, where, normal, eta=eta)
    t_N = torch.cat(seen)
    assert ((t_N[:, None] - levels).abs().amin(1) < 1e-6).all()


def amplification(q: float, eta: float) -> tuple[float, bool]:
    """By how much `euler-maruyama` multiplies an error in two steps over a factor q of sigma each, and if it warns.

    All data are 0, so that x is noise, and the error is x in units of sigma.
    """
    path, sigma = PATHS["edm"](), 0.01 * torch.tensor([q**2, q, 1], dtype=DOUBLE)
    times = torch.cat([path.time_of(-2 * sigma.log()), torch.zeros(1, dtype=DOUBLE)])
    errors = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SAMPLERS["euler-maruyama"](lambda x, t: 0 * x, path.sigma(times[:1]), times, path,
                                   lambda: torch.zeros(1, dtype=DOUBLE), eta=eta,
                                   observe=lambda x, t: errors.append(x / path.sigma(t)))
    return abs(float(errors[1])), bool(caught)


@pytest.mark.parametrize("eta", [1.0, 0.8])
def test_steps_of_euler_maruyama_that_amplify_noise_are_warned_of(eta: float) -> None:
    """|1 - eta^2 (q - 1 / q) / 2| = 1 at q = b + sqrt(b^2 + 1), b = 2 / eta^2: 2 + sqrt(5) for eta = 1."""
    b = 2 / eta**2
    q = b + math.sqrt(b**2 + 1)
    assert amplification(q, eta)[0] == pytest.approx(1, rel=1e-6)
    below, warned = amplification(0.99 * q, eta)
    assert below < 1 and not warned
    above, warned = amplification(1.01 * q, eta)
    assert above > 1 and warned
