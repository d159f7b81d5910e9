"""Loss weights and noise-level densities are the papers'."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import DOUBLE, normals
from scipy.stats import kstest

from gentraj.diffusion.denoiser import DENSITIES, PREDICTIONS, WEIGHTS, NoiseLevel, loss_weight, sample_times
from gentraj.diffusion.paths import PATHS, T_MIN
from gentraj.randomness import generator

T = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 0.95], dtype=DOUBLE)
# Hang et al. 2023, equations 8 to 10 and section 3.4: of the error of x0, of eps and of v
MIN_SNR = {"x0": lambda snr: snr.clamp(max=5), "eps": lambda snr: snr.clamp(max=5) / snr,
           "v": lambda snr: snr.clamp(max=5) / (snr + 1)}


@pytest.mark.parametrize("prediction", MIN_SNR)
@pytest.mark.parametrize("path", ["vp-cosine", "vp-linear"])
def test_min_snr_is_the_papers_in_every_space(path: str, prediction: str) -> None:
    at = NoiseLevel(PATHS[path](), T)
    torch.testing.assert_close(loss_weight("min-snr", PREDICTIONS[prediction], at), MIN_SNR[prediction](at.snr))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_uniform_weighs_the_output_of_a_network_evenly(path: str, prediction: str) -> None:
    weight = loss_weight("uniform", PREDICTIONS[prediction], NoiseLevel(PATHS[path](), T))
    torch.testing.assert_close(weight, torch.ones(len(T), 1, 1, dtype=DOUBLE))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_weighs_the_output_of_an_edm_network_evenly(path: str, sigma_data: float) -> None:
    """Karras et al. 2022, table 1: lambda(sigma) c_out(sigma)^2 = 1."""
    weight = loss_weight("edm", PREDICTIONS["edm"], NoiseLevel(PATHS[path](), T, sigma_data))
    torch.testing.assert_close(weight, torch.ones(len(T), 1, 1, dtype=DOUBLE))


@given(st.sampled_from([name for name in WEIGHTS if name != "uniform"]), st.sampled_from([*PREDICTIONS]),
       st.sampled_from([*PATHS]), st.floats(0.01, 0.99), st.floats(0.2, 5))
def test_a_weight_means_the_same_whatever_is_predicted(weight: str, name: str, path: str, t: float, sigma_data: float,
                                                       ) -> None:
    """The weighted squared error of the network's output equals the weighted squared error of x0."""
    at, prediction = NoiseLevel(PATHS[path](), torch.tensor([t], dtype=DOUBLE), sigma_data), PREDICTIONS[name]
    x, one, other = (normals(1, 3, 2, seed=seed) for seed in range(3))
    x0, another = (prediction.x0(x, prediction.unit(at) * output, at) for output in (one, other))
    torch.testing.assert_close(loss_weight(weight, prediction, at) * (one - other) ** 2,
                               loss_weight(weight, PREDICTIONS["x0"], at) * (x0 - another) ** 2, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_log_normal_is_of_sigma_by_alpha(path: str) -> None:
    """Karras et al. 2022, table 1: mean -1.2 and standard deviation 1.2 of its log. T_MIN cuts 0.3 % off vp-linear."""
    t = sample_times("log-normal", PATHS[path](), 4000, generator(1))
    log_ratio = -PATHS[path]().log_snr(t.double()) / 2
    assert log_ratio.mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / 4000**0.5)
    assert log_ratio.std().item() == pytest.approx(1.2, abs=4 * 1.2 / 8000**0.5)


@pytest.mark.parametrize("path", PATHS)
def test_uniform_is_of_t(path: str) -> None:
    uniform = sample_times("uniform", PATHS[path](), 4000, generator(1))
    assert kstest(uniform.numpy(), "uniform").pvalue > 1e-3


@given(st.sampled_from([*DENSITIES]), st.sampled_from([*PATHS]), st.none() | st.integers(1, 1000), st.integers(0, 99))
def test_times_are_ones_that_the_path_is_used_at(density: str, path: str, levels: int | None, seed: int) -> None:
    t = sample_times(density, PATHS[path](levels), 200, generator(seed))
    assert t.shape == (200,) and t.dtype == torch.float32 and t.min() >= (T_MIN if levels is None else 0.99 / levels)
    assert t.max() <= 1
    if levels is not None:
        torch.testing.assert_close(t * levels, (t * levels).round(), rtol=0, atol=1e-4)
    assert torch.equal(t, sample_times(density, PATHS[path](levels), 200, generator(seed)))
