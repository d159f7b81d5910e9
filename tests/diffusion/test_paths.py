"""Noise paths: clean at 0, noisier ever after, and equal to the papers' closed forms and to `diffusers`' tables."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from oracle import DOUBLE
from torch import Tensor

from gentraj.diffusion.paths import LEVEL_ROUNDING, MAX_BETA, PATHS

LEVELS = [None, 1, 5, 20, 1000]
TABLES = {"vp-cosine": "squaredcos_cap_v2", "vp-linear": "linear"}
INSIDE = torch.linspace(0.01, 0.99, 197, dtype=DOUBLE)


def linear(t: Tensor) -> Tensor:
    """log alpha-bar of vp-linear; d / dt is -beta."""
    return -(0.1 * t + 19.9 * t**2 / 2)


def beta(t: Tensor) -> Tensor:
    return 0.1 + 19.9 * t


def cosine(t: Tensor) -> Tensor:
    return (math.pi / 2 * 0.9946 / 1.008) * ((t * 0.9946 + 0.008) / 1.008 * math.pi / 2).tan()


# f(t) and g(t)^2 of dx = f x dt + g dw. Song et al. 2021, equations 30 to 32; Karras et al. 2022, equation 5.
SDES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "vp-cosine": (lambda t: -cosine(t), lambda t: 2 * cosine(t)),
    "vp-linear": (lambda t: -beta(t) / 2, beta),
    "vp-half": (lambda t: -(0.1 + 9.9 * t) / 2, lambda t: 0.1 + 9.9 * t),
    "sub-vp": (lambda t: -beta(t) / 2, lambda t: beta(t) * (1 - (2 * linear(t)).exp())),
    "ve": (torch.zeros_like, lambda t: 0.01**2 * 5000 ** (2 * t) * 2 * math.log(5000)),
    "edm": (torch.zeros_like, lambda t: 2 * 7 * _edm(t) ** 6 * (_edm(1) - _edm(0)) * (_edm(t) ** 7 - 0.002)),
    "flow": (lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
}


def _edm(t: Tensor | int) -> Tensor:
    return 0.002 ** (1 / 7) + torch.as_tensor(t, dtype=DOUBLE) * (80.002 ** (1 / 7) - 0.002 ** (1 / 7))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_path_is_clean_at_0_and_ever_noisier(name: str, levels: int | None, dtype: torch.dtype) -> None:
    path = PATHS[name](levels)
    t = torch.linspace(0, 1, 201, dtype=dtype)
    alpha, sigma, log_snr = path.alpha(t), path.sigma(t), path.log_snr(t)
    assert alpha.dtype == sigma.dtype == dtype
    assert alpha[0] == 1 and sigma[0] == 0  # exactly: the last step of a sampler gives x0 back
    assert (alpha.diff() <= 0).all() and (sigma.diff() >= 0).all() and (log_snr.diff() < 0).all()


@pytest.mark.parametrize("name", ["vp-cosine", "vp-linear"])
@pytest.mark.parametrize("levels", LEVELS)
def test_variance_is_preserved(name: str, levels: int | None) -> None:
    path, t = PATHS[name](levels), torch.linspace(0, 1, 201, dtype=DOUBLE)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TABLES)
def test_rates_of_a_chain_are_those_between_its_levels(name: str) -> None:
    path, h = PATHS[name](20), 1e-3
    t = (torch.arange(20, dtype=DOUBLE) + 0.5) / 20  # away from the levels, where the slope changes
    for rate, f in zip(path.rates(t), (path.alpha, path.sigma), strict=True):
        torch.testing.assert_close(rate, (f(t + h) - f(t - h)) / (2 * h), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", PATHS)
def test_the_forward_sde_is_the_papers(name: str) -> None:
    """f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2 (Kingma et al. 2021, equation 16)."""
    path, (f, g2) = PATHS[name](), SDES[name]
    sigma, (d_alpha, d_sigma) = path.sigma(INSIDE), path.rates(INSIDE)
    drift = d_alpha / path.alpha(INSIDE)
    torch.testing.assert_close(drift, f(INSIDE), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(2 * sigma * (d_sigma - drift * sigma), g2(INSIDE), rtol=1e-6, atol=1e-9)


@given(st.sampled_from([*PATHS]), st.sampled_from(LEVELS), st.floats(1e-4, 0.9999))
def test_time_of_inverts_the_log_snr(name: str, levels: int | None, t: float) -> None:
    path, at = PATHS[name](levels), torch.tensor([t], dtype=DOUBLE)
    near = 1e-7 + 2 * LEVEL_ROUNDING / (levels or math.inf)
    torch.testing.assert_close(path.time_of(path.log_snr(at)), at, rtol=1e-7, atol=near)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("levels", [1, 20, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_level_is_found_again_by_its_log_snr(name: str, levels: int, dtype: torch.dtype) -> None:
    path, t = PATHS[name](levels), torch.arange(1, levels + 1, dtype=dtype) / levels
    torch.testing.assert_close(path.snap(t), t, rtol=1e-6, atol=0)
    torch.testing.assert_close(path.snap(path.time_of(path.log_snr(t.double()))).to(dtype), t, rtol=1e-6, atol=0)


@given(st.sampled_from([*PATHS]), st.integers(1, 1000), st.floats(0, 1))
def test_a_time_snaps_to_the_next_noisier_level(name: str, levels: int, t: float) -> None:
    n = PATHS[name](levels).snap(torch.tensor([t], dtype=DOUBLE)).item() * levels
    assert 1 - 1e-9 <= n <= levels + 1e-9 and n == pytest.approx(round(n))
    assert t * levels - 2 * LEVEL_ROUNDING <= n < max(t * levels, 1e-9) + 1


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_levels_are_those_of_diffusers(name: str, dtype: torch.dtype) -> None:
    t = torch.arange(1, 1001, dtype=dtype) / 1000
    table = DDPMScheduler(1000, beta_schedule=TABLES[name]).alphas_cumprod.to(dtype)
    torch.testing.assert_close(PATHS[name](1000).alpha(t) ** 2, table, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("levels", [2, 20, 1000])
def test_a_chain_is_the_product_of_its_betas(name: str, levels: int) -> None:
    """Ho et al. 2020, section 2: of betas below 1, and the same at a level whether it comes as float32 or float64."""
    path, n = PATHS[name](levels), torch.arange(levels + 1)
    alpha_bar = path.alpha(n.double() / levels) ** 2
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert (betas > 0).all() and (betas <= MAX_BETA + 1e-12).all()
    if name == "vp-linear" and levels == 1000:
        torch.testing.assert_close(betas, torch.linspace(1e-4, 0.02, levels, dtype=DOUBLE), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(path.alpha(n.float() / levels) ** 2, alpha_bar.float(), rtol=2e-6, atol=0)
