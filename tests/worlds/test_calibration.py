"""A calibration is a monotone map from uncertainty to the error that was found where it was as large."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentraj.worlds.model import Calibration

sizes = st.floats(0, 1e3, width=32)
found = st.lists(st.tuples(sizes, sizes), min_size=1, max_size=80)  # uncertainties and errors of held-out data


def fitted(pairs: list[tuple[float, float]]) -> Calibration:
    return Calibration.fit(*torch.tensor(pairs).unbind(1))


@given(found, st.lists(sizes, min_size=2, max_size=40))
def test_a_larger_uncertainty_never_means_a_smaller_error(pairs: list[tuple[float, float]], asked: list[float]) -> None:
    error = fitted(pairs)(torch.tensor(asked).sort().values)
    assert torch.isfinite(error).all()
    assert (error.diff() >= -1e-5 * error[1:]).all()


@given(found)
def test_inside_the_bins_no_error_is_expected_that_was_not_found(pairs: list[tuple[float, float]]) -> None:
    calibration, error_M = fitted(pairs), torch.tensor(pairs)[:, 1]
    error, (low, high) = calibration(calibration.uncertainty_N), error_M.aminmax()
    assert (error >= low * 0.999 - 1e-18).all() and (error <= high * 1.001).all()  # a square may underflow
    assert low * 0.999 - 1e-18 <= calibration.largest <= high * 1.001


@given(st.lists(st.tuples(st.floats(0.1, 10), sizes), min_size=1, max_size=80), st.floats(1.01, 1e3))
def test_beyond_the_last_bin_it_grows_in_proportion(pairs: list[tuple[float, float]], times: float) -> None:
    calibration = fitted(pairs)
    far = calibration(times * calibration.uncertainty_N[-1:])
    assert far.item() == pytest.approx(times * calibration.largest, rel=1e-4)


def test_a_known_relation_is_recovered_to_within_a_bin() -> None:
    """error = 2 uncertainty; and the same as the deviation of an error that is normal."""
    g = torch.Generator().manual_seed(0)
    uncertainty_M, normal_M = torch.rand(16_000, generator=g), torch.randn(16_000, generator=g)
    asked = torch.linspace(0.04, 1.5, 60)
    exact, noisy = Calibration.fit(uncertainty_M, 2 * uncertainty_M), Calibration.fit(uncertainty_M,
                                                                                      2 * uncertainty_M
                                                                                      * normal_M.abs())
    torch.testing.assert_close(exact(asked), 2 * asked, rtol=0.01, atol=2 / 16 / 8)
    torch.testing.assert_close(noisy(asked), 2 * asked, rtol=0.1, atol=2 / 16)
    assert exact(torch.zeros(1)).item() == pytest.approx(exact.error_N[0].item())  # no less than in the first bin
