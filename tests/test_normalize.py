"""`Normalizer`: a bijection, dimension by dimension, whatever the data look like."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentraj.normalize import STATISTICS, Normalizer

SCALES = {"ordinary": 1.0, "huge": 1e8, "tiny": 1e-6}


def data(scale: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(500, 3)) * scale + 3 * scale).astype(np.float32)


@pytest.mark.parametrize("kind", STATISTICS)
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_unnormalize_inverts_normalize(kind: str, scale: float) -> None:
    x = torch.from_numpy(data(scale))
    normalizer = Normalizer.fit(kind, [x.numpy()])
    back = normalizer.unnormalize(normalizer.normalize(x))
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-6 * scale)


def test_gaussian_has_mean_zero_and_unit_deviation() -> None:
    x = data(5.0)
    z = Normalizer.fit("gaussian", [x]).normalize(torch.from_numpy(x))
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", STATISTICS)
@pytest.mark.parametrize(("middle", "spread", "constant"), [(1e4, 0.009, True), (1e4, 0.011, False),
                                                            (-1e4, 0.009, True), (-1e4, 0.011, False),
                                                            (0.0, 1.1e-38, True), (0.0, 1.3e-38, False)])
def test_a_dimension_is_constant_if_its_spread_is_below_a_millionth_of_its_size(kind: str, middle: float,
                                                                                 spread: float, constant: bool) -> None:
    x = np.array([[middle - spread], [middle + spread]])
    assert Normalizer.fit(kind, [x]).scale_D.item() == (1 if constant else pytest.approx(spread, rel=1e-3, abs=0))


@pytest.mark.parametrize("kind", STATISTICS)
@given(value=st.floats(-1e6, 1e6, width=32), column=st.integers(0, 2))
def test_a_constant_dimension_maps_to_zero_and_leaves_the_others_alone(kind: str, value: float, column: int) -> None:
    x = data(1.0)
    plain = Normalizer.fit(kind, [x]).normalize(torch.from_numpy(x))
    x[:, column] = value
    normalizer = Normalizer.fit(kind, [x])
    z = normalizer.normalize(torch.from_numpy(x))
    assert normalizer.scale_D[column] == 1
    others = [d for d in range(3) if d != column]
    assert torch.equal(z[:, others], plain[:, others])
    torch.testing.assert_close(z[:, column], torch.zeros(len(x)), atol=0.2, rtol=0)


@pytest.mark.parametrize(("shift", "scale"), [
    (torch.nan, 1), (0, torch.inf), (0, 0), (0, -1), (0, 1e-60), (0, 1e60), (-1e60, 1)])
def test_statistics_that_cannot_be_divided_by_are_refused(shift: float, scale: float) -> None:
    """Also where they are finite as float64; as float32 the scale was 0 or infinite, which made samples NaN."""
    with pytest.raises(ValueError, match="finite shifts and positive scales"):
        Normalizer(torch.tensor([shift]).double(), torch.tensor([scale]).double())


@pytest.mark.parametrize("kind", STATISTICS)
def test_numbers_that_float32_hardly_resolves_are_no_large_ones(kind: str) -> None:
    """Unix times of an hour are 29 numbers of float32; they were counted as constant and mapped to up to 1,800."""
    x = (1.7e9 + np.arange(3600.0)[:, None]).astype(np.float32)
    z = Normalizer.fit(kind, [x]).normalize(torch.from_numpy(x))
    assert 0.9 < z.abs().max() < 2.5


@pytest.mark.parametrize("arrays", [[], [np.zeros((0, 3))], [np.zeros((4, 2)), np.zeros((0, 1))], [np.zeros(3)]],
                         ids=["none", "empty", "one empty", "flat"])
@pytest.mark.parametrize("kind", STATISTICS)
def test_arrays_without_rows_are_refused(kind: str, arrays: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"to arrays of shapes .*; one or more of shape \(rows, width\), with"):
        Normalizer.fit(kind, arrays)


@pytest.mark.parametrize("kind", STATISTICS)
def test_numbers_that_are_not_finite_are_refused_by_the_name_of_their_entries(kind: str) -> None:
    x = np.zeros((4, 3))
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"of 4 entries, of which the entries \[2\]"):
        Normalizer.fit(kind, [np.zeros((5, 1)), x])
