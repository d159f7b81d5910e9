"""Step grids fall from 1 to 0 over times that the path is used at, and are the papers' where a paper gives one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import DOUBLE, gaussian, moments

from gentraj.diffusion.paths import GRIDS, PATHS, T_MIN, sampling_times
from gentraj.diffusion.samplers import SAMPLERS


@given(st.sampled_from([*GRIDS]), st.sampled_from([*PATHS]), st.none() | st.integers(1, 300), st.data())
def test_times_fall_from_one_to_zero_over_the_levels(grid: str, name: str, levels: int | None, data: st.DataObject,
                                                     ) -> None:
    steps = data.draw(st.integers(1, min(levels or 300, 300)))
    times = sampling_times(PATHS[name](levels), steps, grid)
    assert times.shape == (steps + 1,) and times.dtype == torch.float32
    assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()
    if levels is not None:
        torch.testing.assert_close(times * levels, (times * levels).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [31, 1001])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", PATHS)
def test_no_time_but_zero_is_below_the_least_of_training(grid: str, name: str, steps: int) -> None:
    assert sampling_times(PATHS[name](), steps, grid)[-2] >= torch.tensor(T_MIN)


@pytest.mark.parametrize(("grid", "name", "least"), [
    ("quadratic", "vp-cosine", 0.0064), ("karras", "vp-linear", 0.0105), ("karras", "sub-vp", 0.0001),
    ("quadratic", "ve", 0.0013), ("karras", "edm", 0.00005), ("karras", "flow", 0.001)])
def test_the_last_step_alone_decides_how_narrow_a_direction_may_be(grid: str, name: str, least: float) -> None:
    """It goes from sigma / alpha = r to x0 as it is denoised: (1 + (r / s)^2)^(-1/2) times the deviation s."""
    path, s = PATHS[name](), torch.tensor([0.003, 0.01, 0.03], dtype=DOUBLE)
    times = sampling_times(path, 300, grid).double()
    r = (path.sigma(times) / path.alpha(times))[-2]
    target = gaussian(torch.zeros(3, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE), s**2)
    found = moments(SAMPLERS["heun"], target, path, times, path.sigma(times[:1]))[1].sqrt()
    torch.testing.assert_close(found / s, (1 + (r / s) ** 2) ** -0.5, rtol=0.005, atol=0)
    assert float(r) == pytest.approx(least if grid == "quadratic" else max(least, 0.002), rel=0.1)


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_karras_is_the_papers_equation(steps: int) -> None:
    """Karras et al. 2022, equation 5, with sigma from 80 to 0.002 and rho = 7, and then 0."""
    path, ramp = PATHS["edm"](), torch.linspace(0, 1, steps, dtype=DOUBLE)
    expected = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigma = path.sigma(sampling_times(path, steps, "karras").double())
    torch.testing.assert_close(sigma, torch.cat([expected, torch.zeros(1)]), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("steps", "expected"), [(0, "at least 1"), (2.5, "a whole number"), (21, "20 noise levels")])
def test_steps_that_cannot_be_are_refused(steps: int, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{steps} sampling steps were given; .*{expected}"):
        sampling_times(PATHS["vp-cosine"](20), steps)
