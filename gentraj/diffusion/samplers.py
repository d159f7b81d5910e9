"""Samplers: plain functions that follow `denoise` through `times` from noisy to clean, the last of which is 0.

All of them solve dx = x0 d alpha + eps d sigma, the probability-flow ODE of any noise path (Song et al. 2021, equation
13), or one of the SDEs with the same marginals. `path` gives alpha(t) and sigma(t), and `normal()` returns the next
standard normal noise of x's shape. `eta` is the amount of noise added on the way: 0 is deterministic, 1 is the method's
full noise. `observe`, if given, sees (x, t) after each step. Times stay on the CPU, and so do the numbers that follow
from them, so that nothing waits for a GPU. Samplers raise ValueError for times that do not fall from at most 1 to 0,
and for eta outside of [0, 1].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..models.sampling import Denoise
from ..trajectory import Observer
from .paths import T_MIN, NoisePath

Normal = Callable[[], Tensor]
NOISELESS = "euler", "heun", "unipc"  # the samplers of the ODE alone


class Sampler(Protocol):
    """Leads noise to data along the times of a path.

    `x` (R, H, D) is noise at `times[0]`; `times` (S + 1,), on the CPU, fall from there to 0. `denoise(x, t)` estimates
    the clean trajectories at t (1,), `normal()` draws noise of the shape of x, and `eta` scales the noise that is added
    in each step: 0 is deterministic. `observe` is called with x and t after each step. Returns x at the last time.
    """

    def __call__(self, denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = ...,
                 observe: Observer | None = None) -> Tensor: ...


class Step(NamedTuple):
    """A step from time t to the cleaner time s, both (1,); the other numbers are scalars. All are on the CPU."""

    t: Tensor
    s: Tensor
    alpha_t: Tensor
    sigma_t: Tensor
    alpha_s: Tensor
    sigma_s: Tensor

    def eps(self, x: Tensor, x0: Tensor) -> Tensor:
        """The noise in x at t."""
        return (x - self.alpha_t * x0) / self.sigma_t

    @property
    def exp_neg_h(self) -> Tensor:
        """e^-h, where h is the step in log(alpha / sigma): 0 for the last step, and for a first one without signal."""
        return self.alpha_t * self.sigma_s / (self.alpha_s * self.sigma_t)

    @property
    def last(self) -> bool:
        return bool(self.sigma_s == 0)


def ddim(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 0.0,
         observe: Observer | None = None) -> Tensor:
    """Song et al. 2021 (DDIM), equations 12 and 16. eta = 1 is DDPM, a sample of q(x_s | x_t, x0) in each step: Ho et
    al. 2020, equation 7 and algorithm 2. eta = 0 is Euler's method for the ODE."""
    for step in steps_along(times, path, eta):
        x0 = denoise(x, step.t)  # the network
        kept = (1 - eta**2 + (eta * step.exp_neg_h) ** 2).sqrt()  # the part of eps that stays
        x = step.alpha_s * x0 + step.sigma_s * (kept * step.eps(x, x0))  # to s
        if eta > 0 and not step.last:
            x = x + step.sigma_s * eta * (1 - step.exp_neg_h**2).sqrt() * normal()  # equation 16
        if observe:
            observe(x, step.s)
    return x


def heun(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 0.0,
         observe: Observer | None = None) -> Tensor:
    """Karras et al. 2022, algorithm 1: two denoisings a step, one in the last step. Raises ValueError if eta is not 0.
    """
    refuse_noise("heun", eta)
    for step in steps_along(times, path, eta):
        x0 = denoise(x, step.t)  # the network
        eps = step.eps(x, x0)  # slope at t, line 4
        x = step.alpha_s * x0 + step.sigma_s * eps  # Euler step, line 5
        if not step.last:
            x0_s = denoise(x, step.s)  # the network again
            eps_s = (x - step.alpha_s * x0_s) / step.sigma_s  # slope at s, line 7
            d_alpha, d_sigma = step.alpha_s - step.alpha_t, step.sigma_s - step.sigma_t
            x = x + (d_alpha * (x0_s - x0) + d_sigma * (eps_s - eps)) / 2  # mean slope, line 8
        if observe:
            observe(x, step.s)
    return x


def euler_maruyama(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 1.0,
                   observe: Observer | None = None) -> Tensor:
    """Song et al. 2021, equation 6, written as the probability-flow ODE plus eta^2 times a Langevin term.

    Warns where a step is so long that it amplifies noise (see `_warn_if_unstable`).
    """
    steps = [*steps_along(times, path, eta)]
    _warn_if_unstable(times, path, eta)
    for step in steps:
        x0 = denoise(x, step.t)  # the network
        eps = step.eps(x, x0)  # noise in x
        x = step.alpha_s * x0 + step.sigma_s * eps  # Euler step
        if eta > 0 and not step.last:
            # g^2 dt, as the variance that the forward SDE adds from s to t: finite where there is no signal at t
            g2 = (step.sigma_t**2 - (step.alpha_t / step.alpha_s * step.sigma_s) ** 2).clamp(min=0) * eta**2
            x = x - g2 / 2 * eps / step.sigma_t + g2.sqrt() * normal()  # Langevin term: drift, noise
        if observe:
            observe(x, step.s)
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 0.0,
             observe: Observer | None = None) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022b, algorithm 2; eta = 1 is the SDE form of equation 19."""
    before: tuple[Tensor, Tensor] | None = None
    for step in steps_along(times, path, eta):
        x0, exp_neg_h = denoise(x, step.t), step.exp_neg_h  # the network
        h = -exp_neg_h.log()
        D = x0  # first order
        if before is not None and not step.last:  # first order in the last step, which is infinite in log SNR
            x0_before, h_before = before
            D = x0 + (x0 - x0_before) * (h / h_before) / 2  # second order
        before = x0, h  # for the next step
        x = step.sigma_s / step.sigma_t * exp_neg_h**eta * x + step.alpha_s * (1 - exp_neg_h ** (1 + eta)) * D
        if eta > 0 and not step.last:
            x = x + step.sigma_s * (1 - exp_neg_h ** (2 * eta)).sqrt() * normal()  # the SDE's noise
        if observe:
            observe(x, step.s)
    return x


def unipc(denoise: Denoise, x: Tensor, times: Tensor, path: NoisePath, normal: Normal, *, eta: float = 0.0,
          observe: Observer | None = None) -> Tensor:
    """UniPC-2 with B(h) = e^h - 1, Zhao et al. 2023, algorithm 8: each denoising also corrects the previous step.

    UniPC is deterministic. Raises ValueError if eta is not 0.
    """
    refuse_noise("unipc", eta)

    def exact(step: Step, x: Tensor, D: Tensor) -> Tensor:
        """x at s if x0 is D all along the step."""
        return step.sigma_s / step.sigma_t * x + step.alpha_s * (1 - step.exp_neg_h) * D

    step_before: Step | None = None
    x_before = x0_before = x  # where the step before started, and x0 there
    slope: tuple[Tensor, Tensor] | None = None  # the paper's D_1 / r_1, and minus r_1; None for a step of first order
    for step in steps_along(times, path, eta):
        x0 = denoise(x, step.t)  # the network
        D = x0
        if step_before is not None:
            change = x0 - x0_before
            D_before = x0_before + change / 2
            if slope is not None:
                D1, r = slope
                h, B = step_before.exp_neg_h.log(), step_before.exp_neg_h - 1
                b1 = (B / h - 1) / B
                b2 = ((B / h - 1) / h - 0.5) * 2 / B
                rho = (b1 - b2) / (1 + r)
                D_before = x0_before + rho * D1 + (b1 - rho) * change
            x = exact(step_before, x_before, D_before)  # UniC, the step before
            slope = None
            if not step.last:
                r = step_before.exp_neg_h.log() / step.exp_neg_h.log()
                slope = change / r, r
                D = x0 + change / r / 2
        step_before, x_before = step, x
        x0_before = x0
        x = exact(step, x, D)  # UniP, this step
        if observe:
            observe(x, step.s)
    return x


def refuse_noise(sampler: str, eta: float | None) -> None:
    """Raises ValueError for an eta that a sampler without noise does not have."""
    if sampler in NOISELESS and eta:
        raise ValueError(f"eta is {eta}; {sampler} adds no noise, give 0")


def steps_along(times: Tensor, path: NoisePath, eta: float) -> Iterator[Step]:
    """The steps between successive times. Raises ValueError unless they fall from at most 1 to 0, and 0 <= eta <= 1."""
    numbers = times.tolist()
    if times.ndim != 1 or len(times) < 2 or numbers[-1] != 0 or numbers[0] > 1 or not _falling(numbers):
        raise ValueError(f"sampling times must fall from at most 1 to exactly 0; given {numbers}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; give 0 (no noise is added) to 1 (the sampler's full noise)")
    return iter(_steps_along(path, tuple(numbers), times.dtype, torch.is_inference_mode_enabled()))


@lru_cache(256)  # with the noise levels, a fifth of the time of a policy's sample
def _steps_along(path: NoisePath, numbers: tuple[float, ...], dtype: torch.dtype, inference: bool) -> list[Step]:
    with torch.inference_mode(inference):
        times = torch.tensor(numbers, dtype=dtype)
        # Tensors of their own, as an exported program keeps no parts of tensors.
        t = [one.clone() for one in times.split(1)]
        alpha = [one.clone() for one in path.alpha(times)]
        sigma = [one.clone() for one in path.sigma(times)]
        return [Step(t[i], t[i + 1], alpha[i], sigma[i], alpha[i + 1], sigma[i + 1]) for i in range(len(t) - 1)]


def _falling(numbers: list[float]) -> bool:
    return all(s < t for t, s in pairwise(numbers))


def _warn_if_unstable(times: Tensor, path: NoisePath, eta: float) -> None:
    """Warns of steps of `euler_maruyama` that are too long.

    Where x0 is certain, x - alpha x0 is noise, of deviation sigma. In units of sigma, a step multiplies it by
    1 - eta^2 g^2 dt / (2 sigma_t sigma_s), and amplifies it below -1: with eta = 1 and a constant alpha, where sigma
    falls by more than a factor of 2 + sqrt(5). Steps to below the least time of training do not count, as data are not
    that certain.
    """
    alpha, sigma = path.alpha(times), path.sigma(times)
    g2 = sigma[:-1] ** 2 - (alpha[:-1] / alpha[1:] * sigma[1:]) ** 2
    drift = (g2 / (2 * sigma[:-1] * sigma[1:]))[times[1:] >= T_MIN]
    if len(drift) and eta**2 * (longest := float(drift.max())) > 2:
        warnings.warn(f"euler-maruyama is unstable with these {len(times) - 1} steps: one of them multiplies noise by "
                      f"{1 - eta**2 * longest:.3g}, so that samples come out too wide; take more steps, a smaller "
                      "eta, or another sampler, such as dpmpp-2m-sde", stacklevel=3)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": partial(ddim, eta=1.0), "ddim": ddim, "euler": ddim, "heun": heun, "euler-maruyama": euler_maruyama,
    "dpmpp-2m": dpmpp_2m, "dpmpp-2m-sde": partial(dpmpp_2m, eta=1.0), "unipc": unipc,
}
"""The samplers by their names, which are the choices of `SamplingOptions.sampler`."""
