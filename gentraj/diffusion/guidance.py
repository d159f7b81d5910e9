"""Guidance by an energy: a plug-in that tilts what a model draws towards what a user wants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config import require
from ..models.plugin import Denoise, Denoising, Plugin, Preference, finite
from ..models.sampling import Guidance, as_plugins
from ..trajectory import Guide
from .composition import FromModel, check_interval, within
from .posterior import covariance, proximal, with_gradient

LEAST_ALPHA = 0.01  # with less signal the posterior's covariance, d x0 / dx divided by alpha, is mostly error


def denoising_plugins(guide: Guidance) -> list[Plugin]:
    """As `as_plugins`; a preference guides. Raises ValueError for a plug-in that has to come first and does not."""
    plugins = [Energy(plugin.energy) if type(plugin) is Preference else plugin for plugin in as_plugins(guide, Energy)]
    for plugin in plugins[1:]:
        if isinstance(plugin, FromModel):
            raise ValueError(f"{type(plugin).__name__} replaces what the model denoises; put it first among the guides")
    return plugins


@dataclass(frozen=True, eq=False)
class Energy(Preference):
    """Tilts p(x) by exp(scale * energy(x)); `energy` maps trajectories (R, H, D), environment units, to scores (R,).

    "denoised" asks the energy about the denoised trajectory: x0' = argmax of scale * energy(z) + log N(z; x0, Sigma)
    over z, with Sigma = sigma^2 / alpha * d x0 / dx the covariance of p(x0 | x) (Tweedie's formula of second order).
    For a Gaussian and a quadratic energy that is exact. It is solved on the energy's quadratic model at x0 by at most
    `iterations` conjugate gradients, each one backward pass through the network (as Rozet et al. 2024, section 4, for
    linear observations). One more than the rank of the energy's Hessian is enough, and for a goal the rank, its number
    of entries. With 0 it is one explicit step, DPS (Chung et al. 2023, equation 10), which takes the energy for linear.
    "noisy" takes the energy's gradient at x itself (Dhariwal & Nichol 2021, algorithm 2), for energies that were
    trained on noisy trajectories, as Diffuser's return is.

    Several energies are exact as one function that adds them; one after the other, each counts the other as linear.
    Guided at times in `interval` only. Sampling raises ValueError for an energy of another shape, one that is not
    finite or has no gradient, one that raises, and when x0' is not finite.
    """

    energy: Guide
    scale: float = 1.0
    at: Literal["denoised", "noisy"] = "denoised"
    iterations: int = 4
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        require(self, scale=(-1e30, 1e30), iterations=(0, math.inf))
        check_interval(self)
        if self.at not in ("denoised", "noisy"):
            raise ValueError(f"Energy.at is '{self.at}'; denoised or noisy is expected")

    def wrap(self, denoise: Denoise, sampling: Denoising) -> Denoise:
        if self.scale == 0:
            return denoise
        condition, path = sampling.condition, sampling.path
        values = sampling.normalizer.normalize(condition.values_BHD)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
            gain = sigma**2 * alpha / alpha.clamp(min=LEAST_ALPHA) ** 2  # sigma^2 / alpha, and none without signal
            if self.at == "noisy":
                x0, tilt = denoise(x, t), self._tilt(torch.where(condition.mask_BHD, values, x), sampling)
                move = gain * torch.where(condition.mask_BHD, 0, tilt.gradient)
            else:
                with torch.enable_grad():
                    x = with_gradient(x)
                    x0 = denoise(x, t)
                tilt = self._tilt(x0, sampling)
                move = proximal(tilt.gradient, tilt.hessian, covariance(x, x0, gain), self.iterations)
            return finite(x0 + move, "the guided trajectory is", "; lower Energy.scale or the energy's slope")

        return within(self.interval, guided, denoise)

    def _tilt(self, z: Tensor, sampling: Denoising) -> Tilt:
        return Tilt(lambda y: self.prefer(sampling.normalizer.unnormalize(y)), z)

    @property
    def works_finished(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.at == "denoised"

    def prefer(self, x_RHD: Tensor) -> Tensor:
        return self.scale * self.scores(x_RHD)


class Tilt:
    """An energy's quadratic model at z_RHD: its gradient there and products with its Hessian."""

    def __init__(self, energy: Guide, z: Tensor):
        with torch.enable_grad():
            self.z = z.detach().requires_grad_()
            total = energy(self.z).sum()
            gradient = None
            if total.requires_grad:
                gradient, = torch.autograd.grad(total, self.z, create_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError("the guide's score has no gradient: it does not depend on the trajectories by "
                             "differentiable torch operations; write it so that it does")
        self._gradient = finite(gradient, "the guide's gradient is", "; smooth the energy or lower its scale")
        self.gradient = self._gradient.detach()

    def hessian(self, v: Tensor) -> Tensor:
        if not self._gradient.requires_grad:
            return torch.zeros_like(v)
        product, = torch.autograd.grad(self._gradient, self.z, v, retain_graph=True, materialize_grads=True)
        return finite(product, "the guide's second derivative is", "; smooth the energy or take Energy.iterations = 0")
