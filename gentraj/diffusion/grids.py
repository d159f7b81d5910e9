"""Step grids: the times of a noise path at which a sampler denoises, from pure noise to clean.

The last time above 0 is at least `T_MIN`, the least time of training. From there a sampler steps to x0 as it is
denoised, so that a direction of standard deviation s comes out (1 + (r / s)^2)^(-1/2) times as wide as it is, however
many steps there are, where r is sigma / alpha at that time: 5 % too narrow at s = 3 r.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .paths import EDM_MAX, EDM_MIN, EDM_RHO, T_MIN, NoisePath


def uniform(path: NoisePath, steps: int) -> Tensor:
    """Times that are evenly spaced in t."""
    return _even(steps, T_MIN)


def quadratic(path: NoisePath, steps: int) -> Tensor:
    """Song et al. 2021 (DDIM), appendix D.2: t = u^2, so that a sigma that grows as sqrt(t) is linear in u."""
    return _even(steps, math.sqrt(T_MIN)) ** 2


def karras(path: NoisePath, steps: int) -> Tensor:
    """Karras et al. 2022, equation 5, in sigma / alpha: from the path's largest, at most 80, down to 0.002.

    Where the path's least time of training is noisier it stops there: 0.0064 on vp-cosine, 0.0105 on vp-linear.
    """
    high, low = _ends(path)
    powers = torch.lerp(high ** (1 / EDM_RHO), low ** (1 / EDM_RHO), _points(steps))
    return path.time_of(-2 * EDM_RHO * powers.log())


def log_snr(path: NoisePath, steps: int) -> Tensor:
    """Times that are evenly spaced in the log SNR (Lu et al. 2022, section 3.3), between the ends of `karras`."""
    high, low = _ends(path)
    return path.time_of(-2 * torch.lerp(high.log(), low.log(), _points(steps)))


def sampling_times(path: NoisePath, steps: int, grid: str = "uniform") -> Tensor:
    """The times of a sampler: float32 (steps + 1,), falling from 1 to 0, all at levels of a discrete path.

    They are computed once for each path, number and grid. Raises ValueError for steps < 1, for more steps than a
    discrete path has levels, and for an unknown grid.
    """
    return _sampling_times(path, steps, grid).clone()


def noised_time(path: NoisePath, ratio: float) -> Tensor:
    """(1,) the time of a path at which sigma / alpha is `ratio`, or the next noisier one at which the path is used."""
    return _noised_time(path, ratio).clone()


@lru_cache(256)
def _noised_time(path: NoisePath, ratio: float) -> Tensor:
    return path.snap(path.time_of(torch.tensor([-2 * math.log(ratio)])))


@lru_cache(256)
def _sampling_times(path: NoisePath, steps: int, grid: str) -> Tensor:
    if grid not in GRIDS:
        raise ValueError(f"unknown step grid '{grid}'; known: {', '.join(GRIDS)}")
    if steps < 1 or steps != int(steps):
        raise ValueError(f"{steps} sampling steps were given; give a whole number of at least 1")
    steps = int(steps)
    times = GRIDS[grid](path, steps)
    times[0], times[-1] = 1.0, 0.0
    if path.levels is not None:
        times = _on_levels(times, path.levels)
    return times.float()


def _on_levels(times: Tensor, levels: int) -> Tensor:
    """The times' nearest levels, moved apart where two would be the same."""
    steps = len(times) - 1
    if steps > levels:
        raise ValueError(f"{steps} sampling steps were given; this model has {levels} noise levels, give 1..{levels}")
    down = torch.arange(steps, -1, -1)
    n = (times * levels).round().long().clamp(min=down)
    return (torch.cummin(n + torch.arange(steps + 1), 0).values.clamp(max=levels) + down - steps) / levels


def _even(steps: int, least: float) -> Tensor:
    """Numbers (steps + 1,) from 1 to 0, evenly spaced, or as evenly as it goes if the last but one is to be `least`."""
    if steps * least <= 1:
        return 1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return torch.cat([torch.linspace(1, least, steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])


def _points(steps: int) -> Tensor:
    """Numbers (steps + 1,): `steps` from 0 to 1, evenly spaced, and one more that stands for time 0."""
    return torch.cat([torch.linspace(0, 1, steps, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])


def _ends(path: NoisePath) -> tuple[Tensor, Tensor]:
    """The largest and the smallest sigma / alpha of a grid."""
    ends = torch.tensor([1.0, T_MIN], dtype=torch.float64)
    ratio = (-path.log_snr(ends) / 2).exp()
    return ratio[0].clamp(max=EDM_MAX), ratio[1].clamp(min=min(EDM_MIN, float(ratio[0]) / 2))


GRIDS = {"uniform": uniform, "quadratic": quadratic, "karras": karras, "log-snr": log_snr}
