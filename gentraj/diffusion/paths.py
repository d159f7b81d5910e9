"""Noise paths x_t = alpha(t) x0 + sigma(t) eps, t in [0, 1], with t = 0 clean and sigma growing with t.

A path is given by `alpha(t)` and `sigma(t)`; everything else follows from them. With `levels` it is used at the times
t = n / levels only, n = 1 .. levels, and vp-cosine and vp-linear are then DDPM's discrete chains (Ho et al. 2020):
alpha(t)^2 at level n is the paper's alpha-bar_n = prod (1 - beta_i).

A step grid is the times of a path at which a sampler denoises, from pure noise to clean. The last time above 0 is at
least `T_MIN`, the least time of training. From there a sampler steps to x0 as it is denoised, so that a direction of
standard deviation s comes out (1 + (r / s)^2)^(-1/2) times as wide as it is, however many steps there are, where r is
sigma / alpha at that time: 5 % too narrow at s = 3 r.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

LEVEL_ROUNDING = 1e-4  # a time this close to a level, in units of levels, is that level: times are float32
T_MIN = 1e-3  # the least time in training, and the least one above 0 in sampling (Song et al. 2021, appendix C)
MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2
COSINE_OFFSET, COSINE_END = 0.008, 0.9946  # Nichol & Dhariwal 2021, equation 17; Lu et al. 2022, appendix D.4
BETA_MIN, BETA_MAX = 0.1, 20.0  # Song et al. 2021, appendix C
BETA_HALF = 10.0  # Wang et al. 2023, appendix B.1
VE_MIN, VE_MAX = 0.01, 50.0  # Song et al. 2021, appendix C
EDM_MIN, EDM_MAX = 0.002, 80.0  # Karras et al. 2022, table 1
EDM_RHO = 7.0  # ibid.

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class NoisePath:
    """A noise path. `alpha` and `sigma` map times of any shape to tensors of the same shape, dtype and device."""

    alpha: Function
    sigma: Function
    levels: int | None = None
    """The number of noise levels; the path is used at times n / levels. None is continuous time, all of (0, 1]."""
    known_rates: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """d alpha / dt and d sigma / dt in closed form; without it they take autograd, which costs as much as a small
    network."""

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt, each of the shape of `t`."""
        if self.known_rates is not None:
            return self.known_rates(t)
        return torch.func.grad(lambda t: self.alpha(t).sum())(t), torch.func.grad(lambda t: self.sigma(t).sum())(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio log(alpha^2 / sigma^2), of the shape of `t`; it falls with t."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The times, of the shape of `log_snr`, by bisection in float64: 1 if the log SNR is below the path's range, 0
        if above."""
        target = log_snr.cpu().double()
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(52):
            middle = (low + high) / 2
            noisy = self.log_snr(middle) <= target
            low, high = torch.where(noisy, low, middle), torch.where(noisy, middle, high)
        return high.to(log_snr)

    def snap(self, t: Tensor) -> Tensor:
        """The next noisier times at which the path is used, of the shape of `t`."""
        if self.levels is None:
            return t.clamp(min=T_MIN)
        return (t * self.levels - LEVEL_ROUNDING).ceil().clamp(min=1) / self.levels


def over_rows(number_R: Tensor) -> Tensor:
    """Numbers of times t (R,) as they multiply trajectories (R, H, D): (R, 1, 1), or a scalar for a single time.

    A scalar may be on the CPU wherever the trajectories are, as it goes with the operation to a GPU.
    """
    if len(number_R) == 1:
        return number_R[0]
    return number_R[:, None, None]


def vp_cosine(levels: int | None = None) -> NoisePath:
    """Nichol & Dhariwal 2021, equation 17. In continuous time it ends where alpha is 0.008, not 0."""

    def log_alpha_bar(t: Tensor) -> Tensor:
        angle = (t + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2
        return 2 * (angle.cos().log() - math.log(math.cos(COSINE_OFFSET / (1 + COSINE_OFFSET) * math.pi / 2)))

    if levels is None:
        return _variance_preserving(lambda t: log_alpha_bar(t * COSINE_END))
    steps = log_alpha_bar(torch.arange(levels + 1, dtype=torch.float64) / levels).diff()
    return _chain(-steps.expm1())


def vp_linear(levels: int | None = None) -> NoisePath:
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02 for 1000 levels, rescaled so that any number ends as noisy.

    In continuous time it is the path of Song et al. 2021, equation 33.
    """
    if levels is None:
        return _variance_preserving(lambda t: -(BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2))
    scale = 1000 / levels
    betas = torch.linspace(scale * 1e-4, scale * 0.02, max(levels, 2), dtype=torch.float64)
    return _chain(betas[-levels:])  # a single level is the noisiest one


def vp_half(levels: int | None = None) -> NoisePath:
    """Half of vp-linear's noise, for few levels (Wang et al. 2023, appendix B.1): their betas 1 to N multiply up to
    alpha(n / N)^2."""
    return _variance_preserving(lambda t: -(BETA_MIN * t + (BETA_HALF - BETA_MIN) * t**2 / 2), levels)


def sub_vp(levels: int | None = None) -> NoisePath:
    """Song et al. 2021, equation 29: vp-linear's alpha, with less noise."""
    vp = vp_linear()
    return _path(vp.alpha, lambda t: vp.sigma(t) ** 2, levels)


def ve(levels: int | None = None) -> NoisePath:
    """Song et al. 2021, equation 29: sigma(t) from 0.01 to 50, less its initial variance, so that t = 0 is clean."""
    growth = 2 * math.log(VE_MAX / VE_MIN)
    return _path(torch.ones_like, lambda t: VE_MIN * (growth * t).expm1().sqrt(), levels)


def edm(levels: int | None = None) -> NoisePath:
    """Karras et al. 2022, equation 5 as sigma(t), less 0.002, so that t = 0 is clean; even steps in t are its steps."""
    low, high = EDM_MIN ** (1 / EDM_RHO), (EDM_MAX + EDM_MIN) ** (1 / EDM_RHO)
    return _path(torch.ones_like, lambda t: (low + t * (high - low)) ** EDM_RHO - low**EDM_RHO, levels)


def flow(levels: int | None = None) -> NoisePath:
    """Rectified flow (Liu et al. 2022, equation 1), the optimal-transport path (Lipman et al. 2023, equation 22)."""
    return NoisePath(lambda t: 1 - t, lambda t: t.clone(), levels,
                     known_rates=lambda t: (-torch.ones_like(t), torch.ones_like(t)))


def _path(alpha: Function, sigma: Function, levels: int | None = None) -> NoisePath:
    """A path computed in float64 on the CPU, since not every device has float64; the results are as `t` is."""
    return NoisePath(lambda t: alpha(t.cpu().double()).to(t), lambda t: sigma(t.cpu().double()).to(t), levels)


def _variance_preserving(log_alpha_bar: Function, levels: int | None = None) -> NoisePath:
    """A path with alpha^2 + sigma^2 = 1."""
    return _path(lambda t: (log_alpha_bar(t) / 2).exp(), lambda t: (-log_alpha_bar(t).clamp(max=0).expm1()).sqrt(),
                 levels)


def _chain(betas: Tensor) -> NoisePath:
    """The path of a discrete chain. Between two levels beta is constant, so that alpha(t) is defined for every t."""
    levels = len(betas)
    table = torch.cat([betas.new_zeros(1), (-betas.clamp(max=MAX_BETA)).log1p().cumsum(0)])

    def log_alpha_bar(t: Tensor) -> Tensor:
        position = t * levels
        near = position.detach().round()
        position = position + torch.where((position - near).abs() < LEVEL_ROUNDING, near - position, 0).detach()
        below = (position.detach().ceil() - 1).clamp(0, levels - 1).long()
        return torch.lerp(table[below], table[below + 1], position - below)

    return _variance_preserving(log_alpha_bar, levels)


PATHS = {"vp-cosine": vp_cosine, "vp-linear": vp_linear, "vp-half": vp_half, "sub-vp": sub_vp, "ve": ve, "edm": edm,
         "flow": flow}
"""Functions that make a `NoisePath`, by its name; each takes a number of levels, or None for continuous time."""


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
    ends = torch.tensor([1.0, T_MIN], dtype=torch.float64)
    ratio = (-path.log_snr(ends) / 2).exp()
    high, low = ratio[0].clamp(max=EDM_MAX), ratio[1].clamp(min=min(EDM_MIN, float(ratio[0]) / 2))
    points = torch.cat([torch.linspace(0, 1, steps, dtype=torch.float64), ends[:1]])  # the last stands for time 0
    powers = torch.lerp(high ** (1 / EDM_RHO), low ** (1 / EDM_RHO), points)
    return path.time_of(-2 * EDM_RHO * powers.log())


def sampling_times(path: NoisePath, steps: int, grid: str = "uniform") -> Tensor:
    """The times of a sampler: float32 (steps + 1,) on the CPU, falling from 1 to 0, all at levels of a discrete path.

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


GRIDS = {"uniform": uniform, "quadratic": quadratic, "karras": karras}
