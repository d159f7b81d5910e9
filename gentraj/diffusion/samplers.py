"""Samplers: plain functions over `denoise`, times from noisy to clean, the last one 0.

`path` gives alpha(t) and sigma(t), `normal()` the next standard normal noise of x's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from .denoiser import Denoise


class Path(Protocol):
    def alpha(self, t: Tensor) -> Tensor: ...

    def sigma(self, t: Tensor) -> Tensor: ...


Observer = Callable[[Tensor, Tensor], None]  # sees (x, t) after each step


def ddim(denoise: Denoise, x: Tensor, times: Tensor, path: Path, normal: Callable[[], Tensor], *, eta: float = 0.0,
         observe: Observer | None = None) -> Tensor:
    """Song et al. 2021 (DDIM), equations 12 and 16. eta = 0 is deterministic, eta = 1 is DDPM's ancestral sampling."""
    for t, s in _pairs(times):
        alpha_t, sigma_t, alpha_s, sigma_s = path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s)
        x0 = denoise(x, t)
        eps = (x - alpha_t * x0) / sigma_t
        churn = eta * sigma_s / sigma_t * (1 - (alpha_t / alpha_s) ** 2).clamp(min=0).sqrt()  # eq. 16
        x = alpha_s * x0 + (sigma_s**2 - churn**2).clamp(min=0).sqrt() * eps  # eq. 12
        if eta > 0 and sigma_s > 0:
            x = x + churn * normal()
        if observe:
            observe(x, s)
    return x


def ddpm(denoise: Denoise, x: Tensor, times: Tensor, path: Path, normal: Callable[[], Tensor], *, eta: float = 1.0,
         observe: Observer | None = None) -> Tensor:
    """Ho et al. 2020, algorithm 2, with the posterior of equations 6 and 7; `eta` scales its standard deviation."""
    for t, s in _pairs(times):
        alpha_t, sigma_t, alpha_s, sigma_s = path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s)
        x0 = denoise(x, t)
        ratio = alpha_t / alpha_s  # square root of the paper's alpha_t
        beta = sigma_t**2 - ratio**2 * sigma_s**2  # exactly sigma_t^2 in the last step, which then returns x0
        x = alpha_s * beta / sigma_t**2 * x0 + ratio * sigma_s**2 / sigma_t**2 * x  # eq. 7
        if eta > 0 and sigma_s > 0:
            x = x + eta * beta.sqrt() * sigma_s / sigma_t * normal()
        if observe:
            observe(x, s)
    return x


def _pairs(times: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each time with the next, as (1,) tensors; raises unless they fall from at most 1 to 0."""
    if len(times) < 2 or not (times[1:] < times[:-1]).all() or times[-1] != 0 or times[0] > 1:
        raise ValueError(f"sampling times must fall from at most 1 to exactly 0; given {times.tolist()}")
    return [(times[i : i + 1], times[i + 1 : i + 2]) for i in range(len(times) - 1)]


SAMPLERS = {"ddpm": ddpm, "ddim": ddim}
