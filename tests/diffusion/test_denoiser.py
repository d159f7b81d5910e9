"""Predictions say the same x0 in their own words, in units of about one, on every path; wrappers keep what is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import DOUBLE, network, normals, predicted
from torch import Tensor

from gentraj.diffusion.denoiser import NEEDS_SIGNAL, PREDICTIONS, NoiseLevel
from gentraj.diffusion.paths import PATHS

SHAPE = (16, 3, 2)
VP = ["vp-cosine", "vp-linear"]


def level(path: str, t: float, sigma_data: float = 1.0, levels: int | None = None) -> NoiseLevel:
    return NoiseLevel(PATHS[path](levels), torch.tensor([t], dtype=DOUBLE), sigma_data)


def noised(x0: Tensor, eps: Tensor, at: NoiseLevel) -> Tensor:
    return at.alpha * x0 + at.sigma * eps


@given(st.sampled_from([*PATHS]), st.sampled_from([*PREDICTIONS]), st.floats(0.001, 0.999), st.floats(0.1, 10),
       st.sampled_from([None, 20, 1000]))
def test_the_target_of_a_prediction_gives_x0_back(path: str, name: str, t: float, sigma_data: float,
                                                  levels: int | None) -> None:
    x0, eps, at = normals(*SHAPE), normals(*SHAPE, seed=1), level(path, t, sigma_data, levels)
    target = PREDICTIONS[name].target(x0, eps, at)
    torch.testing.assert_close(PREDICTIONS[name].x0(noised(x0, eps, at), target, at), x0, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("t", [0.001, 0.3, 0.999])
def test_a_unit_is_the_rms_of_the_target(path: str, name: str, t: float) -> None:
    at = level(path, t)
    target = PREDICTIONS[name].target(normals(10_000, 1, 2), normals(10_000, 1, 2, seed=1), at)
    assert (target / PREDICTIONS[name].unit(at)).square().mean().sqrt().item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("sigma_data", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("path", PATHS)
def test_the_spread_is_that_of_x(path: str, sigma_data: float) -> None:
    at = level(path, 0.4, sigma_data)
    x = noised(sigma_data * normals(10_000, 1, 2), normals(10_000, 1, 2, seed=1), at)
    torch.testing.assert_close(x.std(), at.spread.squeeze(), rtol=0.03, atol=0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", [name for name in PREDICTIONS if name not in NEEDS_SIGNAL])
@pytest.mark.parametrize("levels", [None, 20])
def test_pure_noise_can_be_denoised(path: str, name: str, levels: int | None) -> None:
    x0 = predicted(PATHS[path](levels), name)(normals(*SHAPE), torch.ones(1, dtype=DOUBLE))
    assert torch.isfinite(x0).all()


@pytest.mark.parametrize("name", NEEDS_SIGNAL)
def test_some_say_nothing_of_x0_where_there_is_no_signal(name: str) -> None:
    assert not torch.isfinite(predicted(PATHS["flow"](), name)(normals(*SHAPE), torch.ones(1, dtype=DOUBLE))).any()


@pytest.mark.parametrize("path", VP)
def test_v_is_an_angle_in_the_plane_of_x0_and_eps(path: str) -> None:
    """Salimans & Ho 2022, appendix D: x0 = alpha x - sigma v, eps = sigma x + alpha v, and v = dx / dphi."""
    x0, eps, at = normals(*SHAPE), normals(*SHAPE, seed=1), level(path, 0.37)
    x, v = noised(x0, eps, at), PREDICTIONS["v"].target(x0, eps, at)
    torch.testing.assert_close(at.alpha * x - at.sigma * v, x0)
    torch.testing.assert_close(at.sigma * x + at.alpha * v, eps)
    d_phi = at.rates[1] / at.alpha
    torch.testing.assert_close(PREDICTIONS["velocity"].target(x0, eps, at), d_phi * v)


@pytest.mark.parametrize("path", PATHS)
def test_the_velocity_is_the_rate_of_x(path: str) -> None:
    x0, eps, h = normals(*SHAPE), normals(*SHAPE, seed=1), 1e-6
    later, sooner = (noised(x0, eps, level(path, 0.37 + d)) for d in (h, -h))
    velocity = PREDICTIONS["velocity"].target(x0, eps, level(path, 0.37))
    torch.testing.assert_close(velocity, (later - sooner) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_the_score_is_the_gradient_of_the_log_density(path: str) -> None:
    x0, eps, at = normals(*SHAPE), normals(*SHAPE, seed=1), level(path, 0.37)
    x = noised(x0, eps, at).requires_grad_()
    log_p = torch.distributions.Normal(at.alpha * x0, at.sigma).log_prob(x).sum()
    torch.testing.assert_close(PREDICTIONS["score"].target(x0, eps, at), torch.autograd.grad(log_p, x)[0])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_is_the_preconditioning_of_karras(path: str, sigma_data: float) -> None:
    """Karras et al. 2022, equation 7 and table 1, for their x and sigma: x / alpha and sigma / alpha of any path."""
    at, x = level(path, 0.37, sigma_data), normals(*SHAPE)
    sigma, y = at.sigma / at.alpha, x / at.alpha
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma_data**2 + sigma**2).sqrt()
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    F = network(c_in * y)
    torch.testing.assert_close(PREDICTIONS["edm"].x0(x, network(x / at.spread), at), c_skip * y + c_out * F)
