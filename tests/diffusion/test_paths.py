"""Noise paths: variance preserving, monotone, equal to `diffusers`' tables."""

import pytest
import torch
from diffusers import DDPMScheduler

from gentraj.diffusion.paths import PATHS

ORACLE = {"vp-cosine": "squaredcos_cap_v2", "vp-linear": "linear"}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("levels", [5, 20, 1000])
def test_a_path_falls_from_clean_to_noise_and_preserves_variance(name: str, levels: int) -> None:
    path = PATHS[name](levels)
    t = torch.linspace(0, 1, 200)
    alpha, sigma = path.alpha(t), path.sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
    assert (alpha.diff() < 0).all() and alpha[0] == 1 and sigma[0] == 0
    assert alpha[-1] < 0.1


@pytest.mark.parametrize("name", ORACLE)
def test_the_levels_are_those_of_diffusers(name: str) -> None:
    path, scheduler = PATHS[name](1000), DDPMScheduler(1000, beta_schedule=ORACLE[name])
    t = torch.arange(1, 1001) / 1000
    torch.testing.assert_close(path.alpha(t) ** 2, scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("steps", [1, 3, 5, 20])
def test_sampling_times_fall_from_one_to_zero_over_trained_levels(name: str, steps: int) -> None:
    times = PATHS[name](20).times(steps)
    assert len(times) == steps + 1 and times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()
    torch.testing.assert_close(times * 20, (times * 20).round())


@pytest.mark.parametrize("steps", [0, -1, 21])
def test_a_number_of_steps_that_was_not_trained_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} sampling steps.*give 1..20"):
        PATHS["vp-cosine"](20).times(steps)
