"""log p of trajectories by the probability-flow ODE (Song et al. 2021, section 4.3 and appendix D.2), for any denoiser.

Write alpha = s cos(phi) and sigma = s sin(phi). Then y = x / s follows dy / dphi = cos(phi) eps - sin(phi) x0 on every
path (DDIM's angle: Salimans & Ho 2022, appendix D), and with w = log tan(phi / 2), so that cos(phi) = -tanh(w),

    dy / dw = -tanh(w) y - x0.

This ODE is nowhere singular. As w falls, it approaches the log of half the noise level, and y the data; at w = 0 there
is no signal left, and y is standard normal. So a path that ends in pure noise needs no special care. A path that ends
before is followed past its end, where x0 hardly depends on x any more.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ..models.plugin import Denoise
from ..randomness import RowNoise, fold
from .paths import NoisePath

PROBES = 8
PROBE = zlib.crc32(b"probe")
MAX_EXACT = 32  # the most unknown entries for which the divergence is exact by default
STEPS = 64  # for models: networks are not smooth enough in time for the doubling to converge below their own error
MIN_STEPS, MAX_STEPS, TOLERANCE = 32, 512, 5e-3
BLUR = 1e-4


@torch.no_grad()
def log_prob(denoise: Denoise, path: NoisePath, x_RHD: Tensor, unknown_RHD: Tensor, *, seeds: Sequence[int] = (),
             exact: bool | None = None, probes: int = PROBES, steps: int | None = None, tolerance: float = TOLERANCE,
             blur: float = BLUR) -> Tensor:
    """The log density (R,) of the unknown entries given the others, in nats, in the units and the dtype of `x_RHD`.

    It is the density of data blurred by normal noise of standard deviation `blur`, which should be well below the
    finest detail of the data. With `exact` true the divergence costs one derivative for each unknown entry; with
    `exact` false it costs one for each of the `probes` and is estimated with random signs that depend on the row's seed
    (Hutchinson's estimator: Grathwohl et al. 2019, equation 7). With None it is exact for rows of up to `MAX_EXACT`
    unknown entries.

    The ODE is solved by the Runge-Kutta method of order 4 in `steps` steps, the same for all rows. With None the steps
    are doubled from `MIN_STEPS` to at most `MAX_STEPS` until the result changes by no more than `tolerance`, in nats
    or, where |log p| is larger than 1, relative to it. With this method no row depends on the rows beside it, as it
    would with an adaptive solver. Points far off the data and between its modes take the most steps. The result has no
    gradient. Raises ValueError for steps < 1, and where the estimate lacks probes or seeds.
    """
    if steps is not None and (steps < 1 or steps != int(steps)):
        raise ValueError(f"{steps} steps of the ODE were given; give a whole number of at least 1, or None")
    directions = _Directions(unknown_RHD, seeds, exact, probes, x_RHD.dtype)
    solve = partial(_solve, denoise, path, x_RHD, unknown_RHD, directions, blur)
    if steps is not None:
        return solve(int(steps))
    steps, log_p_R = MIN_STEPS, solve(MIN_STEPS)
    settled_R = torch.zeros_like(log_p_R, dtype=torch.bool)
    while steps < MAX_STEPS and not settled_R.all():
        steps *= 2
        finer_R = torch.where(settled_R, log_p_R, solve(steps))
        settled_R = (finer_R - log_p_R).abs() <= tolerance * finer_R.abs().clamp(min=1)
        log_p_R = finer_R
    return log_p_R


def _solve(denoise: Denoise, path: NoisePath, x_RHD: Tensor, unknown_RHD: Tensor, directions: _Directions, blur: float,
           steps: int) -> Tensor:
    """The log density by the ODE from the data to pure noise, whose density is known."""
    from torchdiffeq import odeint  # imports scipy.integrate, which takes half a second or more

    count_R = unknown_RHD.sum((1, 2)).to(x_RHD.dtype)

    def rate(w: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """dy / dw, and its divergence."""
        t = path.time_of(2 * (-w).sinh().log()).view(1)
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            x0 = denoise(torch.where(unknown_RHD, path.alpha(t).hypot(path.sigma(t)) * y, x_RHD), t)
            trace_R = sum((_inner(v, torch.autograd.grad(x0, y, v, retain_graph=True)[0]) for v in directions),
                          torch.zeros_like(count_R))
        change = torch.where(unknown_RHD, -w.tanh() * y - x0, 0).detach()
        return change, -w.tanh() * count_R - trace_R

    w = _grid(path, steps, blur).to(x_RHD)
    start = (torch.where(unknown_RHD, -w[0].tanh() * x_RHD, x_RHD), torch.zeros_like(count_R))
    y, change_R = odeint(rate, start, w[[0, -1]], method="rk4", options={"grid_constructor": lambda *_: w})
    y = torch.where(unknown_RHD, y[-1], 0)
    return change_R[-1] - _inner(y, y) / 2 + count_R * ((-w[0].tanh()).log() - math.log(2 * math.pi) / 2)


def _grid(path: NoisePath, steps: int, blur: float) -> Tensor:
    """Values of w from where sigma / alpha is `blur` to where the path ends, and in one more step to 0."""
    t = torch.ones(1, dtype=torch.float64)
    first, last = -math.asinh(1 / blur), -float(torch.asinh(path.alpha(t) / path.sigma(t)))
    return torch.cat([torch.linspace(first, last, steps + 1, dtype=t.dtype), 0 * t]).unique()


def _inner(a_RHD: Tensor, b_RHD: Tensor) -> Tensor:
    return (a_RHD * b_RHD).sum((1, 2))


class _Directions:
    """Vectors v of x's shape for which the sum of v^T J v is the trace of a Jacobian J over the unknown entries.

    For an exact row the k-th vector is the unit vector of its k-th unknown entry; other rows have random signs.
    """

    def __init__(self, unknown_RHD: Tensor, seeds: Sequence[int], exact: bool | None, probes: int,
                 dtype: torch.dtype):
        count_R = unknown_RHD.sum((1, 2))
        exact_R = count_R <= MAX_EXACT if exact is None else torch.full_like(count_R, exact, dtype=torch.bool)
        self.unknown_RHD, self.exact_R11 = unknown_RHD.to(dtype), exact_R[:, None, None]
        self.rank_RHD = unknown_RHD.flatten(1).cumsum(1).view_as(unknown_RHD) - 1
        self.signs_RPHD = self.rank_RHD.new_zeros(len(exact_R), 0, 1, 1)
        if not exact_R.all():
            if probes < 1 or len(seeds) != len(exact_R):
                raise ValueError(f"{probes} probes and {len(seeds)} seeds were given for {len(exact_R)} rows with too "
                                 "many unknown entries for an exact divergence; give at least 1 probe and a seed per "
                                 "row")
            own = [fold(seed, PROBE) for seed in seeds]  # other random numbers than those of a sample with this seed
            normal = RowNoise(own, unknown_RHD.device).normal(probes, *unknown_RHD.shape[1:])
            self.signs_RPHD = torch.where(normal < 0, -1, 1) / math.sqrt(probes)
        self.number = max(int((count_R * exact_R).max()), self.signs_RPHD.shape[1])

    def __iter__(self) -> Iterator[Tensor]:
        for k in range(self.number):
            signs = self.signs_RPHD[:, k] if k < self.signs_RPHD.shape[1] else self.rank_RHD.new_zeros(())
            yield torch.where(self.exact_R11, self.rank_RHD == k, signs) * self.unknown_RHD
