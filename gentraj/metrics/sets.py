"""How near one set of trajectories is to another: metrics of feature matrices, real (N, F) and fake (M, F).

Features are what `features` makes of trajectories, so that a distance between two of them is their root mean square
difference in standard deviations of the data. Nothing quadratic in N or M is held in memory beyond `BLOCK`
numbers, and no result depends on it but by rounding. All raise ValueError for what `checked` refuses. Noise well below
the distance of neighbours hardly shows in them; it does in `smoothness`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..randomness import generator

BLOCK = 1 << 22  # distances held at a time (32 MiB), or those of a single row where it is longer than that


def checked(least: int, **sets: Tensor) -> list[Tensor]:
    """The named feature matrices (R, F) in float64.

    Raises ValueError, naming the set, for other shapes, widths that differ, fewer rows than `least`, and non-finite
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
                         + ": as many in each are expected")
    return [x.detach().double() for x in sets.values()]


def check_finite(name: str, x: Tensor) -> None:
    """Raises ValueError, naming the set, where a value is NaN or infinite."""
    if bad := int((~torch.isfinite(x)).sum()):
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; give finite trajectories")


def blocks(a_NF: Tensor, b_MF: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of `a` and their Euclidean distances (rows, M) to all of `b`, one part after the other.

    Differences are squared and summed, not multiplied out: a copy is at distance 0 exactly, and no distance depends
    on the block that it is in.
    """
    size = max(1, BLOCK // len(b_MF))
    for start in range(0, len(a_NF), size):
        rows = slice(start, start + size)
        yield rows, torch.cdist(a_NF[rows], b_MF, compute_mode="donot_use_mm_for_euclid_dist")


def kth_distance(a_NF: Tensor, b_MF: Tensor, k: int) -> Tensor:
    """(N,) distance of each row of `a` to the k-th nearest row of `b`; within one set the first is the row itself."""
    return torch.cat([d.topk(k, largest=False).values[:, -1] for _, d in blocks(a_NF, b_MF)])


BANDWIDTHS = (0.5, 1.0, 2.0)  # of the kernels of `mmd`, in median distances


class Neighbourhoods(NamedTuple):
    """How far two sets lie among each other's k-nearest-neighbour balls, in shares of 1.

    `precision`: of the fake, those in a ball of the real; `recall`: of the real, those in a ball of the fake
    (Kynkaanniemi et al. 2019, eq. 1 and 2). `density`: the number of real balls that a fake is in over k, 0 and up;
    `coverage`: of the real balls, those that hold a fake (Naeem et al. 2020, section 3). For equal distributions and
    N = M the mean of density is 1 and that of coverage about 1 - 1 / 2^k, 0.97 for k = 5; precision and recall depend
    on the distribution.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real_NF: Tensor, fake_MF: Tensor, k: int = 5) -> Neighbourhoods:
    """All four in one pass over the distances; k + 1 rows are needed of each.

    A ball reaches up to the k-th nearest other row of its own set, which itself is outside, as in the package prdc:
    the balls of rows that are there more than k times are empty.
    """
    real, fake = checked(k + 1, real=real_NF, fake=fake_MF)
    radius_N, radius_M = kth_distance(real, real, k + 1), kth_distance(fake, fake, k + 1)
    precise_M = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = inside = covered = 0
    for rows, d in blocks(real, fake):
        in_real = d < radius_N[rows, None]
        precise_M |= in_real.any(0)
        inside += int(in_real.sum())
        covered += int(in_real.any(1).sum())
        recalled += int((d < radius_M).any(1).sum())
    return Neighbourhoods(precision=int(precise_M.sum()) / len(fake), recall=recalled / len(real),
                          density=inside / (k * len(fake)), coverage=covered / len(real))


def wasserstein(real_NP: Tensor, fake_MP: Tensor) -> Tensor:
    """(P,) Wasserstein distance of order 1 of each column, in its units: the area between two distribution functions.

    Equals `scipy.stats.wasserstein_distance`; N and M may differ.
    """
    a_PN, b_PM = (x.T.contiguous().sort().values for x in checked(1, real=real_NP, fake=fake_MP))
    every = torch.cat([a_PN, b_PM], 1).sort().values
    at = every[:, :-1].contiguous()
    share_a, share_b = (torch.searchsorted(x, at, right=True).double() / x.shape[1] for x in (a_PN, b_PM))
    return ((share_a - share_b).abs() * every.diff()).sum(1)


def sliced_wasserstein(real_NF: Tensor, fake_MF: Tensor, seed: int = 0, projections: int = 256) -> float:
    """Mean Wasserstein distance of order 1 along random unit vectors, in units of the features; 0 where equal.

    Bonneel et al. 2015, with the mean in place of the integral over directions. A shift of the features by a vector
    of length v gives about 0.8 v / sqrt(F).
    """
    real, fake = checked(1, real=real_NF, fake=fake_MF)
    normal_PF = torch.randn(projections, real.shape[1], generator=generator(seed), dtype=torch.float64)
    units_PF = normalize(normal_PF).to(real.device)
    parts = units_PF.split(max(1, BLOCK // (len(real) + len(fake))))
    return float(torch.cat([wasserstein(real @ part.T, fake @ part.T) for part in parts]).mean())


def mmd(real_NF: Tensor, fake_MF: Tensor) -> float:
    """Squared maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3): about 0 where equal, or below; under 2.

    The kernel is the mean of Gaussians exp(-d^2 / 2 s^2) with s of `BANDWIDTHS` times the median, over the real rows,
    of the median distance to the other real rows; so every model is measured with the same kernel.
    """
    real, fake = checked(2, real=real_NF, fake=fake_MF)
    n, m = len(real), len(fake)
    median = float(kth_distance(real, real, n // 2 + 1).median())
    widths = [max(b * median, 1e-12) for b in BANDWIDTHS]  # half the rows alike: only copies are similar

    def similarity(a: Tensor, b: Tensor) -> float:
        return sum(float(torch.exp(-((d / s) ** 2) / 2).sum()) for _, d in blocks(a, b) for s in widths) / len(widths)

    within = sum((similarity(x, x) - len(x)) / (len(x) * (len(x) - 1)) for x in (real, fake))  # less k(x, x) = 1
    return within - 2 * similarity(real, fake) / (n * m)


def frechet_distance(real_NF: Tensor, fake_MF: Tensor) -> float:
    """Squared Frechet distance of Gaussians fitted to the two (Dowson & Landau 1982; Heusel et al. 2017); 0 is equal.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in squared units of the features. Too large where rows are not many
    times the F features, so compare equal numbers of rows only.
    """
    real, fake = checked(2, real=real_NF, fake=fake_MF)
    # With C = R^T R the last trace is the sum of the singular values of R1 R2^T, so no covariance need be regular.
    roots = [torch.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), mode="r").R for x in (real, fake)]
    spread = sum(root.square().sum() for root in roots)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return max(0.0, float((real.mean(0) - fake.mean(0)).square().sum() + spread - 2 * shared))


def two_sample_accuracy(real_NF: Tensor, fake_MF: Tensor, seed: int = 0) -> float:
    """How often a row's nearest other row tells which set it is from: 0.5 is chance, 1 always, under 0.5 are copies.

    Classifier two-sample test with one nearest neighbour, leaving the row out (Lopez-Paz & Oquab 2017). Of the larger
    set as many rows as the smaller has are drawn by `seed`. A tie counts one half.
    """
    real, fake = checked(2, real=real_NF, fake=fake_MF)
    drawn = [x[torch.randperm(len(x), generator=generator(seed))[: min(len(real), len(fake))].to(x.device)]
             for x in (real, fake)]
    own = torch.cat([kth_distance(x, x, 2) for x in drawn])
    other = torch.cat([kth_distance(x, y, 1) for x, y in (drawn, drawn[::-1])])
    return float(((own < other).double() + (own == other).double() / 2).mean())


def novelty(fake_MF: Tensor, train_RF: Tensor) -> Tensor:
    """(M,) distance to the nearest training row, in units of the features; 0 is a copy."""
    fake, train = checked(1, fake=fake_MF, train=train_RF)
    return kth_distance(fake, train, 1)


METRICS: dict[str, Callable[[Tensor, Tensor, int], float]] = {  # (real_NF, fake_MF, seed)
    "precision": lambda real, fake, seed: neighbourhoods(real, fake).precision,
    "recall": lambda real, fake, seed: neighbourhoods(real, fake).recall,
    "density": lambda real, fake, seed: neighbourhoods(real, fake).density,
    "coverage": lambda real, fake, seed: neighbourhoods(real, fake).coverage,
    "sliced_wasserstein": sliced_wasserstein,
    "mmd": lambda real, fake, seed: mmd(real, fake),
    "frechet_distance": lambda real, fake, seed: frechet_distance(real, fake),
    "two_sample_accuracy": two_sample_accuracy,
}
