"""`denoise(x, t) -> x0`, the one primitive: what a network predicts turned into x0, and what wraps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.plugin import Denoise
from .paths import NoisePath


@dataclass(frozen=True)
class Level:
    """The noise level of each row: alpha, sigma and their rates at time t, ready to multiply x_RHD.

    `sigma_data` is the standard deviation of normalised data.
    """

    path: NoisePath
    t_R: Tensor
    sigma_data: float = 1.0

    @cached_property
    def alpha(self) -> Tensor:
        return self.path.alpha(self.t_R)[:, None, None]

    @cached_property
    def sigma(self) -> Tensor:
        return self.path.sigma(self.t_R)[:, None, None]

    @cached_property
    def rates(self) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt."""
        d_alpha, d_sigma = self.path.rates(self.t_R)
        return d_alpha[:, None, None], d_sigma[:, None, None]

    @cached_property
    def spread(self) -> Tensor:
        """The standard deviation of x_t: what x is divided by before a network sees it (EDM's 1 / c_in)."""
        return ((self.alpha * self.sigma_data) ** 2 + self.sigma**2).sqrt()

    @property
    def snr(self) -> Tensor:
        return (self.alpha / self.sigma) ** 2


class Prediction(NamedTuple):
    """A parameterisation: x0 from (x, what is predicted, level), what it should be from (x0, eps, level), its size.

    `unit` is about the root mean square of the target: a network's output is multiplied by it.
    """

    x0: Callable[[Tensor, Tensor, Level], Tensor]
    target: Callable[[Tensor, Tensor, Level], Tensor]
    unit: Callable[[Level], Tensor] = lambda at: torch.ones_like(at.alpha)


def _velocity_x0(x: Tensor, u: Tensor, at: Level) -> Tensor:
    d_alpha, d_sigma = at.rates
    return (d_sigma * x - at.sigma * u) / (at.alpha * d_sigma - d_alpha * at.sigma)


def _edm_x0(x: Tensor, F: Tensor, at: Level) -> Tensor:
    # c_skip and c_out of Karras et al. 2022, table 1, for x = alpha (x0 + sigma / alpha eps)
    return (at.alpha * at.sigma_data**2 * x + at.sigma * at.sigma_data * at.spread * F) / at.spread**2


def _edm_target(x0: Tensor, eps: Tensor, at: Level) -> Tensor:
    return (at.sigma * x0 - at.alpha * at.sigma_data**2 * eps) / (at.sigma_data * at.spread)


PREDICTIONS = {
    # Ho et al. 2020, equation 15
    "eps": Prediction(lambda x, eps, at: (x - at.sigma * eps) / at.alpha, lambda x0, eps, at: eps),
    "x0": Prediction(lambda x, x0, at: x0, lambda x0, eps, at: x0),
    # Salimans & Ho 2022, section 4: v = alpha eps - sigma x0
    "v": Prediction(lambda x, v, at: (at.alpha * x - at.sigma * v) / (at.alpha**2 + at.sigma**2),
                    lambda x0, eps, at: at.alpha * eps - at.sigma * x0,
                    lambda at: (at.alpha**2 + at.sigma**2).sqrt()),
    # Song et al. 2021, equation 7: the gradient of log p_t(x | x0); the network's output is divided by sigma as there
    "score": Prediction(lambda x, score, at: (x + at.sigma**2 * score) / at.alpha,
                        lambda x0, eps, at: -eps / at.sigma, lambda at: 1 / at.sigma),
    # Lipman et al. 2023, equation 13: dx / dt along the path
    "velocity": Prediction(_velocity_x0, lambda x0, eps, at: at.rates[0] * x0 + at.rates[1] * eps,
                           lambda at: (at.rates[0] ** 2 + at.rates[1] ** 2).sqrt()),
    # Karras et al. 2022, equation 7 and table 1
    "edm": Prediction(_edm_x0, _edm_target),
}
NEEDS_SIGNAL = ("eps", "score")  # say nothing of x0 where alpha is 0


def hold(denoise: Denoise, values: Tensor, mask: Tensor) -> Denoise:
    """The known entries stay known: the network sees them clean, and they come back as they are.

    Once a denoising, right around the network: what x has there is then looked at by nothing, and x0 does not vary
    with it, so that guidance moves no known entry.
    """

    def held(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(mask, values, denoise(torch.where(mask, values, x), t))

    return held


P_MEAN, P_STD = -1.2, 1.2  # Karras et al. 2022, table 1
GAMMA = 5.0  # Hang et al. 2023, section 4.2

Density = Callable[[NoisePath, int, torch.Generator], Tensor]
Weight = Callable[[Tensor, Level], Tensor]


def _uniform(path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Ho et al. 2020, algorithm 1."""
    return torch.rand(size, generator=generator)


def _log_normal(path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Karras et al. 2022, table 1: ln(sigma / alpha) is normal."""
    return path.time_of(-2 * (P_MEAN + P_STD * torch.randn(size, generator=generator)))


def _logit_normal(path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Esser et al. 2024, equation 19, with location 0 and scale 1."""
    return torch.randn(size, generator=generator).sigmoid()


DENSITIES: dict[str, Density] = {"uniform": _uniform, "log-normal": _log_normal, "logit-normal": _logit_normal}

# Weights of the squared error of x0. `c` is how far x0 moves as the network's output moves by 1.
WEIGHTS: dict[str, Weight] = {
    "uniform": lambda c, at: 1 / c**2,  # of the network's own output: Ho et al. 2020, equation 14
    "min-snr": lambda c, at: at.snr.clamp(max=GAMMA),  # Hang et al. 2023, equation 10
    "edm": lambda c, at: at.snr + 1 / at.sigma_data**2,  # Karras et al. 2022, table 1
}


def sample_times(density: str, path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """(size,) training times, each one the path is used at."""
    return path.snap(DENSITIES[density](path, size, generator))


def loss_weight(weight: str, prediction: Prediction, at: Level) -> Tensor:
    """(R, 1, 1) weight of the squared error of the network's output."""
    c = prediction.x0(torch.zeros_like(at.alpha), prediction.unit(at), at).abs()
    return c**2 * WEIGHTS[weight](c, at)
