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
from collections.abc import Iterator

import torch
from torch import Tensor

from ..device import to_device
from ..models.sampling import Denoise, by_blocks, check_trajectories, without_gradient
from ..randomness import Noise, Seeds, as_noise
from ..trajectory import Condition
from .denoiser import DenoisingModel
from .paths import NoisePath, over_rows

PROBES = 8
PROBE_STREAM = zlib.crc32(b"probe")  # other random numbers than those of a sample with the same seed
MAX_EXACT = 32  # the most unknown entries for which the divergence is exact by default
ODE_STEPS = 64  # more do not help: networks are not smooth in time
BLUR = 1e-4


@without_gradient
def log_prob(model: DenoisingModel, x_RHD: Tensor, condition: Condition | None = None, *,
             seeds: Seeds = 0, exact: bool | None = None, probes: int = PROBES,
             steps: int | None = None) -> Tensor:
    """The log density (R,), in environment units, of the entries of x that `condition` leaves unknown, given the
    others.

    It is computed by the probability-flow ODE in `steps` steps, 64 by default; see `Divergence` for `exact` and
    `probes`. With the observations known it is log p(actions | observations). The values of `x_RHD` at known entries
    are ignored. `seeds` is one seed for all rows or one for each. A low value suggests that the model was not trained
    on such trajectories. Raises ValueError for shapes that do not fit and for numbers that are not finite.

    The density is that of data blurred by the smallest noise of training. A model with few `levels` is evaluated
    between the levels that it was trained on: train in continuous time (`levels=None`) for accurate numbers.
    """
    if condition is None:
        condition = Condition.empty(model.spec, len(x_RHD))
    if steps is None:
        steps = ODE_STEPS
    noise = as_noise(seeds, len(x_RHD), "trajectories")
    normalizer, path = model.normalizer, model.path
    x_RHD, condition = x_RHD.to(normalizer.shift_D), condition.to(normalizer.shift_D.device)
    check_trajectories(model.spec, x_RHD, condition)
    condition = condition.repeat(1)  # tensors of its own, as those made in inference mode take no gradient
    blur = float((-path.log_snr(path.snap(torch.zeros(1))) / 2).exp())

    def log_prob_rows(x_RHD: Tensor, known: Condition, noise: Noise) -> Tensor:
        values = normalizer.normalize(known.values_BHD)
        denoise = model.denoise(values, known.mask_BHD, known.context_BC, clipped=False)
        x = torch.where(known.mask_BHD, values, normalizer.normalize(x_RHD))
        divergence = Divergence(~known.mask_BHD, noise, exact, probes)
        return ode_log_prob(denoise, path, x, divergence, steps=steps, blur=blur)

    log_p_R = by_blocks(log_prob_rows, x_RHD, condition, noise)
    return log_p_R - (~condition.mask_BHD * normalizer.scale_D.log()).sum((1, 2))


class Divergence:
    """The divergence of x0 as a function of the unknown entries of x, exact or estimated, for each row.

    It is the sum of v^T J v over some vectors v, where J is the Jacobian. With `exact` true they are the unit vectors
    of the unknown entries, each of which costs one derivative. With `exact` false they are as many as `probes`, with
    random signs from the row's noise (Hutchinson's estimator: Grathwohl et al. 2019, equation 7). With None it
    is exact for rows of up to `MAX_EXACT` unknown entries. Raises ValueError where the estimate lacks probes or noise.
    """

    def __init__(self, unknown_RHD: Tensor, noise: Noise | None = None, exact: bool | None = None,
                 probes: int = PROBES):
        count_R = unknown_RHD.sum((1, 2))
        exact_R = count_R <= MAX_EXACT
        if exact is not None:
            exact_R = torch.full_like(exact_R, exact)
        self.unknown_RHD, self.exact_R11 = unknown_RHD, exact_R[:, None, None]
        self.rank_RHD = unknown_RHD.flatten(1).cumsum(1).view_as(unknown_RHD) - 1
        self.signs_RPHD = self.rank_RHD.new_zeros(len(exact_R), 0, 1, 1)
        if not exact_R.all():
            given = 0 if noise is None else len(noise)
            if probes < 1 or noise is None or given != len(exact_R):
                raise ValueError(f"{probes} probes and noise of {given} rows were given for {len(exact_R)} rows with "
                                 "too many unknown entries for an exact divergence; give at least 1 probe and noise "
                                 "for each row")
            normal = noise.anew(PROBE_STREAM).normal(probes, *unknown_RHD.shape[1:])
            self.signs_RPHD = to_device(torch.where(normal < 0, -1, 1) / math.sqrt(probes), unknown_RHD.device)
        self.number = max(int((count_R * exact_R).max()), self.signs_RPHD.shape[1])

    def of(self, x0: Tensor, x: Tensor) -> Tensor:
        """The divergence (R,) of x0, which was computed from x."""
        trace_R = x.new_zeros(len(x))
        for v in self._vectors(x):
            trace_R = trace_R + _inner(v, torch.autograd.grad(x0, x, v, retain_graph=True)[0])
        return trace_R

    def _vectors(self, x: Tensor) -> Iterator[Tensor]:
        unknown_RHD = self.unknown_RHD.to(x.dtype)
        for k in range(self.number):
            signs = self.signs_RPHD[:, k] if k < self.signs_RPHD.shape[1] else self.rank_RHD.new_zeros(())
            yield torch.where(self.exact_R11, self.rank_RHD == k, signs) * unknown_RHD


@torch.no_grad()
def ode_log_prob(denoise: Denoise, path: NoisePath, x_RHD: Tensor, divergence: Divergence, *,
                 steps: int = ODE_STEPS, blur: float = BLUR) -> Tensor:
    """The log density (R,) of the unknown entries given the others, in nats, in the units and the dtype of `x_RHD`.

    It is the density of data blurred by normal noise of standard deviation `blur`, which should be well below the
    finest detail of the data. The ODE from the data to pure noise, whose density is known, is solved by the Runge-Kutta
    method of order 4 in `steps` steps, the same for all rows: no row depends on the rows beside it, as it would with an
    adaptive solver. The result has no gradient. Raises ValueError for steps < 1.
    """
    from torchdiffeq import odeint  # imports scipy.integrate, which takes half a second or more

    if steps < 1 or steps != int(steps):
        raise ValueError(f"{steps} steps of the ODE were given; give a whole number of at least 1")
    unknown_RHD = divergence.unknown_RHD
    count_R = unknown_RHD.sum((1, 2)).to(x_RHD.dtype)

    def rate(w: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """dy / dw, and its divergence."""
        t = path.time_of(2 * (-w).sinh().log()).view(1).cpu()
        size = over_rows(path.alpha(t).hypot(path.sigma(t)))
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            x0 = denoise(torch.where(unknown_RHD, size * y, x_RHD), t)
            trace_R = divergence.of(x0, y)
        change = torch.where(unknown_RHD, -w.tanh() * y - x0, 0).detach()
        return change, -w.tanh() * count_R - trace_R

    w = _grid(path, int(steps), blur).to(x_RHD)
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
