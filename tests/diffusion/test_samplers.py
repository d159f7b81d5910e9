"""Samplers against `diffusers`, step by step, and against the closed form of a Gaussian."""

from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor

from gentraj.diffusion.denoiser import PREDICTIONS, Denoise, hold
from gentraj.diffusion.paths import PATHS, VPPath
from gentraj.diffusion.samplers import SAMPLERS

SCHEDULES = {"vp-cosine": "squaredcos_cap_v2", "vp-linear": "linear"}
ORACLE_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (4, 8, 3)


def network(x: Tensor) -> Tensor:
    """Any function of x will do: both sides are given the same."""
    return torch.tanh(1.3 * x + 0.2)


def denoiser(path: VPPath, prediction: str) -> Denoise:
    to_x0 = PREDICTIONS[prediction].x0
    return lambda x, t: to_x0(x, network(x), path.alpha(t)[:, None, None], path.sigma(t)[:, None, None])


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(sampler: str, path: VPPath, prediction: str, times: Tensor, eta: float, noise: list[Tensor]) -> list[Tensor]:
    seen: list[Tensor] = []
    SAMPLERS[sampler](denoiser(path, prediction), start(), times, path, iter(noise).__next__, eta=eta,
                      observe=lambda x, t: seen.append(x))
    return seen


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 20])
def test_ddim_equals_diffusers_at_every_step(schedule: str, prediction: str, eta: float, steps: int) -> None:
    path = PATHS[schedule](100)
    oracle = diffusers.DDIMScheduler(100, beta_schedule=SCHEDULES[schedule], prediction_type=ORACLE_NAMES[prediction],
                                     clip_sample=False, timestep_spacing="trailing")
    oracle.set_timesteps(steps)
    oracle.alphas_cumprod = path.alpha_bar[1:]  # the same numbers in float64
    noise = [start(seed) for seed in range(1, steps + 1)]
    x, theirs = start(), []
    for n, z in zip(oracle.timesteps, noise, strict=True):
        x = oracle.step(network(x), int(n), x, eta=eta, variance_noise=z).prev_sample
        theirs.append(x)
    times = torch.cat([(oracle.timesteps.double() + 1) / 100, torch.zeros(1, dtype=torch.float64)])
    for a, b in zip(ours("ddim", path, prediction, times, eta, noise), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_equals_diffusers_at_every_step(schedule: str, prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PATHS[schedule](20)
    oracle = diffusers.DDPMScheduler(20, beta_schedule=SCHEDULES[schedule], prediction_type=ORACLE_NAMES[prediction],
                                     clip_sample=False, variance_type="fixed_small")
    oracle.set_timesteps(20)
    oracle.alphas_cumprod = path.alpha_bar[1:]
    oracle.one = torch.tensor(1.0, dtype=torch.float64)
    noise = [start(seed) for seed in range(1, 20)]
    drawn = iter(noise)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: next(drawn))
    x, theirs = start(), []
    for n in oracle.timesteps:
        x = oracle.step(network(x), int(n), x).prev_sample
        theirs.append(x)
    times = torch.arange(20, -1, -1, dtype=torch.float64) / 20
    for a, b in zip(ours("ddpm", path, prediction, times, 1.0, noise), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def gaussian_denoiser(path: VPPath, mean: Tensor, covariance: Tensor) -> Denoise:
    """E[x0 | x_t] for x0 ~ N(mean, covariance)."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        total = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=x.dtype)
        return mean + (x - alpha * mean) @ torch.linalg.solve(total, alpha * covariance)

    return denoise


@pytest.mark.parametrize(("sampler", "eta"), [*((name, 1.0) for name in SAMPLERS), ("ddim", 0.0)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_gaussian_comes_back_with_its_mean_and_covariance(sampler: str, schedule: str, eta: float) -> None:
    g = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=g, dtype=torch.float64) / 2
    mean, covariance = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64), root @ root.T + 0.1 * torch.eye(4)
    path = PATHS[schedule](1000)
    normal: Callable[[], Tensor] = lambda: torch.randn(20_000, 4, generator=g, dtype=torch.float64)  # noqa: E731
    times = path.times(500).double()
    x = SAMPLERS[sampler](gaussian_denoiser(path, mean, covariance), normal(), times, path, normal, eta=eta)
    torch.testing.assert_close(x.mean(0), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.04, rtol=0.04)


def test_ancestral_ddim_is_ddpm() -> None:
    path, noise = PATHS["vp-cosine"](20), [start(seed) for seed in range(1, 21)]
    times = path.times(20).double()
    ddim, ddpm = (ours(sampler, path, "x0", times, 1.0, noise) for sampler in ("ddim", "ddpm"))
    for a, b in zip(ddim, ddpm, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_held_entries_come_back_as_they_are(sampler: str, steps: int) -> None:
    path, values = PATHS["vp-cosine"](20), start(9).float()
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.5
    x = SAMPLERS[sampler](hold(denoiser(path, "x0"), values, mask), start().float(), path.times(steps), path,
                          lambda: start(3).float())
    assert torch.equal(x[mask], values[mask]) and not torch.equal(x[~mask], values[~mask])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("times", [[1.0], [0.5, 1.0, 0.0], [1.0, 0.5], [1.5, 0.0], [1.0, 1.0, 0.0]])
def test_times_that_do_not_fall_to_zero_are_refused(sampler: str, times: list[float]) -> None:
    path = PATHS["vp-cosine"](20)
    with pytest.raises(ValueError, match="must fall from at most 1 to exactly 0"):
        SAMPLERS[sampler](denoiser(path, "x0"), start(), torch.tensor(times), path, start)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_of_the_truth_gives_x0_back(prediction: str) -> None:
    x0, eps, alpha, sigma = start(1), start(2), torch.tensor(0.6), torch.tensor(0.8)
    to_x0, target = PREDICTIONS[prediction]
    back = to_x0(alpha * x0 + sigma * eps, target(x0, eps, alpha, sigma), alpha, sigma)
    torch.testing.assert_close(back, x0)
