"""Metrics of sets of trajectories, and of single ones. A new metric of sets takes a function and a line in `METRICS`.

Metrics of sets take feature matrices, real (N, F) and fake (M, F), as `features` computes them from trajectories. The
distance of two rows is then the root mean square difference of two trajectories in standard deviations of the data.
They hold at most about `MAX_DISTANCES` in memory at a time, and apart from rounding no result depends on that size.
All of them raise ValueError for matrices that `checked` refuses. Noise much smaller than the distance between
neighbouring trajectories hardly changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .normalize import Normalizer
from .randomness import generator

if TYPE_CHECKING:
    from .constraints import Constraints

__all__ = ["METRICS", "Neighbourhoods", "Violations", "features", "fit_scale", "frechet_distance", "measure",
           "neighbourhoods", "novelty", "sliced_wasserstein", "two_sample_accuracy", "violations", "wasserstein"]

MAX_DISTANCES = 1 << 22  # distances held at a time (32 MiB); at least those of a single row are


def checked(least: int, **sets: Tensor) -> list[Tensor]:
    """The named feature matrices (R, F), converted to float64.

    Raises ValueError, naming the set, for other shapes, differing widths, fewer rows than `least` and non-finite
    values.
    """
    widths = {}
    for name, x in sets.items():
        if x.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; (rows, features) is expected")
        if len(x) < least:
            raise ValueError(f"{name} has {len(x)} rows; at least {least} are needed, give more trajectories")
        check_finite(name, x)
        widths[name] = x.shape[1]
    if len(set(widths.values())) > 1:
        raise ValueError("; ".join(f"{name} has {width} features" for name, width in widths.items())
                         + "; the same number in each is expected")
    return [x.detach().double() for x in sets.values()]


def check_finite(name: str, x: Tensor) -> None:
    """Raises ValueError, naming the set, where a value is NaN or infinite."""
    if bad := int((~torch.isfinite(x)).sum()):
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; give finite trajectories")


def blocks(a_NF: Tensor, b_MF: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields slices of the rows of `a` with their Euclidean distances (rows, M) to all rows of `b`.

    Differences are squared and summed, not expanded into a matrix product: a copy is at distance exactly 0, and no
    distance depends on the block that it is computed in.
    """
    size = max(1, MAX_DISTANCES // len(b_MF))
    for start in range(0, len(a_NF), size):
        rows = slice(start, start + size)
        yield rows, torch.cdist(a_NF[rows], b_MF, compute_mode="donot_use_mm_for_euclid_dist")


def kth_distance(a_NF: Tensor, b_MF: Tensor, k: int) -> Tensor:
    """(N,) distance of each row of `a` to the k-th nearest row of `b`; within one set the nearest row is the row
    itself."""
    return torch.cat([d.topk(k, largest=False).values[:, -1] for _, d in blocks(a_NF, b_MF)])


PROJECTIONS = 256  # directions of `sliced_wasserstein`


class Neighbourhoods(NamedTuple):
    """How much two sets overlap, by the balls that reach to each row's k-th nearest neighbour in its own set.

    `precision` is the fraction of fake rows inside a real ball, and `recall` the fraction of real rows inside a fake
    ball (Kynkaanniemi et al. 2019, eq. 1 and 2). `density` is the mean number of real balls around a fake row, divided
    by k, and has no upper bound; `coverage` is the fraction of real balls that contain a fake row (Naeem et al. 2020,
    section 3). For equal distributions and N = M the expected density is 1 and the expected coverage about 1 - 1 / 2^k,
    0.97 for k = 5; precision and recall then depend on the distribution.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real_NF: Tensor, fake_MF: Tensor, k: int = 5) -> Neighbourhoods:
    """Computes all four metrics in one pass over the distances; each set needs at least k + 1 rows.

    A ball reaches to the k-th nearest other row of its own set and excludes that row, as in the package prdc. The ball
    of a row that occurs more than k times is therefore empty.
    """
    real, fake = checked(k + 1, real=real_NF, fake=fake_MF)
    radius_N, radius_M = kth_distance(real, real, k + 1), kth_distance(fake, fake, k + 1)
    precise_M = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = 0
    inside = 0
    covered = 0
    for rows, d in blocks(real, fake):
        in_real = d < radius_N[rows, None]
        precise_M |= in_real.any(0)
        inside += int(in_real.sum())
        covered += int(in_real.any(1).sum())
        recalled += int((d < radius_M).any(1).sum())
    return Neighbourhoods(precision=int(precise_M.sum()) / len(fake), recall=recalled / len(real),
                          density=inside / (k * len(fake)), coverage=covered / len(real))


def wasserstein(real_NP: Tensor, fake_MP: Tensor) -> Tensor:
    """(P,) Wasserstein distance of order 1 for each column, in the column's units: the area between the two cumulative
    distribution functions.

    N and M may differ. The result is on the CPU.
    """
    from scipy.stats import wasserstein_distance  # half a second, which only this one takes

    real, fake = checked(1, real=real_NP, fake=fake_MP)
    return torch.tensor([wasserstein_distance(a_N, b_M) for a_N, b_M in zip(real.T.cpu(), fake.T.cpu(), strict=True)],
                        dtype=torch.float64)


def sliced_wasserstein(real_NF: Tensor, fake_MF: Tensor, seed: int = 0) -> float:
    """Mean Wasserstein distance of order 1 along random unit vectors, in units of the features; 0 for equal sets.

    This is the distance of Bonneel et al. 2015, with a mean over `PROJECTIONS` directions in place of the integral. A
    shift of all features by a vector of length v gives about 0.8 v / sqrt(F).
    """
    real, fake = checked(1, real=real_NF, fake=fake_MF)
    normal_PF = torch.randn(PROJECTIONS, real.shape[1], generator=generator(seed), dtype=torch.float64)
    units_PF = normalize(normal_PF).to(real.device)
    parts = units_PF.split(max(1, MAX_DISTANCES // (len(real) + len(fake))))
    return float(torch.cat([wasserstein(real @ part.T, fake @ part.T) for part in parts]).mean())


def frechet_distance(real_NF: Tensor, fake_MF: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to the sets (Dowson & Landau 1982; Heusel et al. 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in squared units of the features; 0 for equal means and covariances.
    The estimate is too large unless there are many times more rows than features, so compare values from equal numbers
    of rows only.
    """
    real, fake = checked(2, real=real_NF, fake=fake_MF)
    # With C = R^T R the last trace is the sum of the singular values of R1 R2^T, so a covariance may be singular.
    roots = [torch.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), mode="r").R for x in (real, fake)]
    spread = sum(root.square().sum() for root in roots)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(0.0, float((real.mean(0) - fake.mean(0)).square().sum() + spread - 2 * shared))


def two_sample_accuracy(real_NF: Tensor, fake_MF: Tensor, seed: int = 0) -> float:
    """Leave-one-out accuracy of a nearest-neighbour classifier that tells real rows from fake ones.

    This is the classifier two-sample test with one nearest neighbour (Lopez-Paz & Oquab 2017). An accuracy of 0.5 is
    chance, 1 means that every row is classified correctly, and less than 0.5 indicates copies. A model whose samples
    all lie in one place can have 0.5, too: all of its rows are classified correctly and no real one, so that precision
    or recall is low (Xu et al. 2018, "An Empirical Study on Evaluation Metrics of Generative Adversarial Networks").
    The larger set is subsampled, by `seed`, to the size of the smaller one. A tie counts one half.
    """
    real, fake = checked(2, real=real_NF, fake=fake_MF)
    sampled = [x[torch.randperm(len(x), generator=generator(seed))[: min(len(real), len(fake))].to(x.device)]
               for x in (real, fake)]
    own = torch.cat([kth_distance(x, x, 2) for x in sampled])
    other = torch.cat([kth_distance(x, y, 1) for x, y in (sampled, sampled[::-1])])
    return float(((own < other).double() + (own == other).double() / 2).mean())


def novelty(fake_MF: Tensor, train_RF: Tensor, k: int = 1) -> Tensor:
    """(M,) distance of each fake row to the k-th nearest training row, in units of the features; 0 for a copy.

    For rows that are training rows themselves, k = 2 is the nearest other one.
    """
    fake, train = checked(k, fake=fake_MF, train=train_RF)
    return kth_distance(fake, train, k)


METRICS: dict[str, Callable[[Tensor, Tensor, int], float]] = {  # (real_NF, fake_MF, seed)
    "precision": lambda real, fake, seed: neighbourhoods(real, fake).precision,
    "recall": lambda real, fake, seed: neighbourhoods(real, fake).recall,
    "density": lambda real, fake, seed: neighbourhoods(real, fake).density,
    "coverage": lambda real, fake, seed: neighbourhoods(real, fake).coverage,
    "sliced_wasserstein": sliced_wasserstein,
    "frechet_distance": lambda real, fake, seed: frechet_distance(real, fake),
    "two_sample_accuracy": two_sample_accuracy,
}
"""The metrics by their names: functions of features of real (N, F) and of generated trajectories (M, F), and a seed."""


def fit_scale(real_RHD: Tensor) -> Normalizer:
    """The mean and standard deviation of each dimension over all timesteps of real windows without padding."""
    check_finite("real", real_RHD)
    return Normalizer.fit("gaussian", [real_RHD.detach().flatten(0, 1).cpu().numpy()]).to(real_RHD.device)


def features(x_RHD: Tensor, scale: Normalizer) -> Tensor:
    """(R, H * D) float64: each entry in standard deviations of its dimension, divided by sqrt(H * D).

    The distance between two rows is then the root mean square difference of two trajectories in standard deviations of
    the data (in environment units along a dimension that is constant in the data). Raises ValueError for other shapes.
    """
    if x_RHD.ndim != 3 or x_RHD.shape[2] != len(scale.scale_D):
        raise ValueError(f"trajectories of shape {tuple(x_RHD.shape)} were given; "
                         f"(R, H, {len(scale.scale_D)}) is expected")
    z_RHD = (x_RHD.double() - scale.shift_D) / scale.scale_D
    return z_RHD.flatten(1) / math.sqrt(x_RHD.shape[1] * x_RHD.shape[2])


def measure(real_RHD: Tensor, fake_RHD: Tensor, *, seed: int) -> dict[str, float]:
    """Computes all `METRICS` from windows without padding, in environment units; the real windows set the scale.

    Raises ValueError for fewer than 6 trajectories, differing shapes and non-finite values.
    """
    scale = fit_scale(real_RHD)
    real, fake = features(real_RHD, scale), features(fake_RHD.to(real_RHD.device), scale)
    scores = neighbourhoods(real, fake)._asdict()  # four metrics in one pass over the distances
    return scores | {name: metric(real, fake, seed) for name, metric in METRICS.items() if name not in scores}


class Violations(NamedTuple):
    """How often and by how much trajectories violate their constraints."""

    share: float
    """The fraction of trajectories that violate a constraint by more than the tolerance, 0 to 1."""
    worst: float
    """The largest violation, in the units of the violated constraint; 0 if there is none."""


def violations(x: Tensor, constraints: Constraints) -> Violations:
    """Summarises how trajectories (..., H, D), in environment units, violate `constraints`.

    Raises ValueError for other shapes, for no trajectories and for non-finite values, which satisfy no constraint.
    """
    if not x.numel() or not torch.isfinite(x).all():
        raise ValueError(f"trajectories of shape {tuple(x.shape)} were given, {int((~torch.isfinite(x)).sum())} of "
                         "their values NaN or infinite; at least one trajectory and finite values are expected")
    certificate = constraints.certificate(x)
    return Violations(float((~certificate.feasible).double().mean()), float(certificate.worst.max()))
