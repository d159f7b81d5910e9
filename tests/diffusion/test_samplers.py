"""What every sampler keeps to, whatever the path, the grid and the denoiser."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from oracle import DOUBLE, held, network, normals, predicted, stream
from torch import Tensor

from gentraj.diffusion.paths import PATHS, sampling_times
from gentraj.diffusion.samplers import SAMPLERS
from gentraj.models.sampling import Denoise

pytestmark = pytest.mark.filterwarnings("ignore:euler-maruyama is unstable")  # with a few long steps
SHAPE = (4, 8, 3)
CALLS = {"ddim": 1, "euler": 1, "heun": 2, "predictor-corrector": 2, "unipc": 1}  # denoisings in a step but the last
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
    for grid, steps in (("uniform", 1), ("log-snr", 2), ("karras", 7)):
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


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize(("steps", "eta"), [(40, 0.5), (40, 1.0), (4, 1.0)])
def test_churn_goes_back_a_share_of_the_step_and_at_most_the_papers(sampler: str, steps: int, eta: float) -> None:
    """gamma = e^(eta h) - 1, at most sqrt(2) - 1 (Karras et al. 2022, algorithm 2): as steps shrink, so does it."""
    path, seen = PATHS["edm"](), []
    times = sampling_times(path, steps, "log-snr").double()[1:]  # from below 1, where nothing is noisier
    log_ratio = -path.log_snr(times[:-1]) / 2
    SAMPLERS[sampler](lambda x, t: seen.append(t) or network(x), normals(*SHAPE), times, path, stream(*SHAPE), eta=eta)
    churned = -path.log_snr(torch.cat(seen)[:: CALLS[sampler]]) / 2
    h = torch.cat([-log_ratio.diff(), torch.full((1,), torch.inf)])
    torch.testing.assert_close(churned - log_ratio, (eta * h).clamp(max=math.log(2) / 2), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_network_is_called_at_the_levels_that_it_was_trained_at(path: str, sampler: str) -> None:
    """However much noise is added on the way, and x has then the variance of its level: here data are 0."""
    where, seen, levels, wide = PATHS[path](20), [], torch.arange(1, 21) / 20, stream(2000)
    eta = 0.0 if sampler == "unipc" else 1.0

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        if sampler in ("euler", "heun"):
            assert float(x.std() / where.sigma(t)) == pytest.approx(1, abs=0.1)
        return torch.zeros_like(x)

    for steps in (5, 20):
        times = sampling_times(where, steps)
        SAMPLERS[sampler](denoise, where.sigma(times[:1]) * wide().float(), times, where, lambda: wide().float(),
                          eta=eta)
    t_N = torch.cat(seen)
    assert ((t_N[:, None] - levels).abs().amin(1) < 1e-6).all()
    if (path, sampler) == ("vp-cosine", "euler"):
        assert not torch.equal(t_N[:5], sampling_times(where, 5)[:5])  # noise was added


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
