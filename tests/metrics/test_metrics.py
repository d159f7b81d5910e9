"""Metrics of sets of rows: known answers, other libraries, laws, and a bound on the memory."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc
from scipy.linalg import sqrtm
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gentraj import metrics
from gentraj.metrics import (
    METRICS,
    frechet_distance,
    kth_distance,
    neighbourhoods,
    novelty,
    sliced_wasserstein,
    two_sample_accuracy,
)

SEEDS = st.integers(0, 2**31)
PERFECT = {"precision": 1, "recall": 1, "density": 1, "coverage": 1, "sliced_wasserstein": 0, "frechet_distance": 0,
           "two_sample_accuracy": 0}  # of a set and itself; every row's nearest other row is then its copy
all_metrics = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
Metric = Callable[[Tensor, Tensor, int], float]


def column(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def normal(rows: int, width: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) + shift


# Known answers.


def test_neighbourhoods_by_hand() -> None:
    real = column(0, 1, 3, 6, 8)  # radii 1, 1, 2, 2, 2
    fake = column(0.4, 0.5, 2, 9, 10, 30)  # radii 0.1, 0.1, 1.5, 1, 1, 20
    got = neighbourhoods(real, fake, k=1)
    assert got.precision == 4 / 6  # 0.4, 0.5, 2 and 9; 10 is on the edge of the ball of 8, which is outside
    assert got.recall == 2 / 5  # 1 and 3 are in the ball of 2; 8 is on the edge of the ball of 9
    assert got.density == 6 / 6  # two in that of 0, two in that of 1, one in that of 3 and in that of 8
    assert got.coverage == 4 / 5


def test_sliced_wasserstein_of_numbers_is_the_area_between_distribution_functions() -> None:
    assert sliced_wasserstein(column(0, 1), column(5, 6)) == pytest.approx(5)
    assert sliced_wasserstein(column(0, 1), column(0, 0, 0, 3)) == pytest.approx(1 / 4 + 2 / 4)


def test_two_sample_accuracy_by_hand() -> None:
    # Nearest others of 0, 1, 10 and of 2, 5, 6: own; a tie; other; other; own; own.
    assert two_sample_accuracy(column(0, 1, 10), column(2, 5, 6)) == pytest.approx(3.5 / 6)
    assert two_sample_accuracy(normal(30, 2), normal(50, 2, shift=100)) == 1
    assert two_sample_accuracy(normal(400, 2), normal(900, 2, seed=1)) == pytest.approx(0.5, abs=0.07)


def test_novelty_by_hand() -> None:
    fake, train = torch.tensor([[0.0, 0.0], [3.0, 5.0]]), torch.tensor([[3.0, 4.0], [0.0, 6.0], [6.0, 9.0]])
    assert torch.equal(novelty(fake, train), torch.tensor([5.0, 1.0], dtype=torch.float64))


def test_singular_covariances_have_a_frechet_distance() -> None:
    line, point = torch.zeros(5, 3), torch.tensor([[1.0, 2.0, 2.0]]).expand(4, 3)
    line[:, 0] = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])  # variance 2.5 about 0
    assert frechet_distance(line, point) == pytest.approx(9 + 2.5)
    assert frechet_distance(line, line[:, [1, 0, 2]]) == pytest.approx(5)  # lines at right angles share nothing
    few = normal(4, 50)  # fewer rows than features
    assert frechet_distance(few, few + 1) == pytest.approx(50)


# Other libraries.


@given(seed=SEEDS, n=st.integers(9, 60), m=st.integers(9, 60), width=st.integers(1, 6), k=st.integers(1, 6))
def test_neighbourhoods_agree_with_prdc(seed: int, n: int, m: int, width: int, k: int) -> None:
    real, fake = normal(n, width, seed), normal(m, width, seed + 1, shift=0.3)
    assert neighbourhoods(real, fake, k)._asdict() == pytest.approx(compute_prdc(real.numpy(), fake.numpy(), k),
                                                                   abs=1e-6)


@given(seed=SEEDS)
def test_frechet_distance_agrees_with_scipy(seed: int) -> None:
    real = normal(40, 5, seed) @ normal(5, 5, seed + 1)
    fake = normal(30, 5, seed + 2, shift=0.5) @ normal(5, 5, seed + 3)
    c1, c2 = np.cov(real.T), np.cov(fake.T)
    expected = (real.mean(0) - fake.mean(0)).square().sum() + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    assert frechet_distance(real, fake) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


# Laws.


@pytest.mark.parametrize("name", PERFECT)
def test_a_set_is_perfect_beside_itself(name: str) -> None:
    x = normal(40, 3)
    assert METRICS[name](x, x.flip(0), 0) == pytest.approx(PERFECT[name], abs=1e-12)


@all_metrics
@given(seed=SEEDS)
def test_the_order_of_rows_and_where_the_origin_is_do_not_matter(metric: Metric, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    real, fake = normal(20, 3, seed), normal(20, 3, seed + 1, shift=0.5)
    mixed = [x[torch.randperm(20, generator=generator)] + 8 for x in (real, fake)]
    assert metric(mixed[0], mixed[1], seed) == pytest.approx(metric(real, fake, seed), abs=1e-9)


@pytest.mark.parametrize(("name", "power"), {**dict.fromkeys(METRICS, 0), "sliced_wasserstein": 1,
                                             "frechet_distance": 2}.items())
@given(seed=SEEDS, exponent=st.integers(-8, 8))
def test_features_scaled_by_a_factor_scale_the_result_by_its_power(name: str, power: int, seed: int,
                                                                   exponent: int) -> None:
    real, fake = normal(20, 3, seed), normal(25, 3, seed + 1, shift=0.5)
    scaled = METRICS[name](real * 2.0**exponent, fake * 2.0**exponent, seed)
    assert scaled == pytest.approx(METRICS[name](real, fake, seed) * 2.0 ** (exponent * power), rel=1e-9, abs=1e-12)


@given(size=st.integers(1, 500), k=st.integers(1, 12), seed=SEEDS)
def test_distances_are_the_same_bits_in_every_block(size: int, k: int, seed: int) -> None:
    a, b = normal(17, 5, seed), normal(12, 5, seed + 1)
    brute = (a[:, None] - b).square().sum(-1).sqrt().sort(1).values[:, k - 1]
    whole = kth_distance(a, b, k)
    torch.testing.assert_close(whole, brute)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "MAX_DISTANCES", size)
        assert torch.equal(kth_distance(a, b, k), whole)


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that any operation made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else (out,):
            self.size = max(self.size, made.numel() if isinstance(made, Tensor) else 0)
        return out


@pytest.mark.parametrize("name", [*METRICS, "novelty"])
def test_nothing_larger_than_the_block_is_held(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_DISTANCES", 3000)
    real, fake = normal(500, 4), normal(400, 4, seed=1)
    with Largest() as largest:
        novelty(fake, real) if name == "novelty" else METRICS[name](real, fake, 0)
    assert 500 <= largest.size <= 3000  # of 200,000 distances


@all_metrics
@pytest.mark.parametrize(("real", "fake", "message"), [
    (torch.zeros(9, 3), torch.zeros(9, 4), "fake has 4 features"),
    (torch.zeros(9, 3), torch.zeros(9, 3, 1), r"fake has shape \(9, 3, 1\)"),
    (torch.zeros(9, 3), torch.full((9, 3), torch.nan), "NaN or infinite"),
    (torch.zeros(9, 3), torch.zeros(0, 3), "fake has 0 rows"),
])
def test_what_cannot_be_measured_is_refused(metric: Metric, real: Tensor, fake: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(real, fake, 0)
