"""The denoiser D(x; t) that a network becomes between its scalings, and the loss by which it learns to denoise.

Noise levels, parameterisations and the weights of the loss come first; `Preconditioned` and `denoising_loss`, which
training, sampling, likelihood and students call, stand at the end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..device import to_device_together
from ..models.conditional import Microbatch
from ..models.sampling import Denoise
from ..normalize import Normalizer
from ..trajectory import TrajectorySpec
from .paths import NoisePath


class NoiseLevel:
    """The noise level of each row at time t (R,): alpha, sigma, their rates and the spread of x_t, all (R, 1, 1).

    `sigma_data` is the standard deviation of normalised data. Paths are computed on the CPU: of times that are there,
    one copy brings all of this to a GPU, which would have to be waited for if the times were.
    """

    def __init__(self, path: NoisePath, t_R: Tensor, sigma_data: float = 1.0, device: torch.device | None = None):
        self.path, self.given_R = path, t_R
        self.sigma_data = sigma_data
        alpha, sigma = path.alpha(t_R), path.sigma(t_R)
        # The standard deviation of x_t, by which x_t is divided before a network sees it (EDM's 1 / c_in).
        spread = ((alpha * sigma_data) ** 2 + sigma**2).sqrt()
        self.t_R, *numbers = to_device_together([t_R, alpha, sigma, spread], device or t_R.device)
        self.alpha = numbers[0][:, None, None]
        self.sigma = numbers[1][:, None, None]
        self.spread = numbers[2][:, None, None]

    def each(self) -> Iterator[NoiseLevel]:
        """The level of each row alone, with tensors of its own, as an exported program keeps no parts of tensors."""
        for i in range(len(self.t_R)):
            one = copy.copy(self)
            for name in ("given_R", "t_R", "alpha", "sigma", "spread"):
                setattr(one, name, getattr(self, name)[i : i + 1].clone())
            yield one

    def noised(self, x0: Tensor, eps: Tensor) -> Tensor:
        """x_t (R, H, D): x0 with the noise eps of this level."""
        return self.alpha * x0 + self.sigma * eps

    @cached_property
    def rates(self) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt."""
        d_alpha, d_sigma = to_device_together(self.path.rates(self.given_R), self.t_R.device)
        return d_alpha[:, None, None], d_sigma[:, None, None]

    @property
    def snr(self) -> Tensor:
        return (self.alpha / self.sigma) ** 2


def levels_at(path: NoisePath, times_S: Tensor, sigma_data: float, device: torch.device) -> dict[float, NoiseLevel]:
    """The noise levels at the times of a sampling (S,), on a device, by their times. They are computed once."""
    return _levels_at(path, tuple(times_S.tolist()), times_S.dtype, sigma_data, device,
                      torch.is_inference_mode_enabled())


@lru_cache(256)
def _levels_at(path: NoisePath, numbers: tuple[float, ...], dtype: torch.dtype, sigma_data: float,
               device: torch.device, inference: bool) -> dict[float, NoiseLevel]:
    with torch.inference_mode(inference):
        times_S = torch.tensor(numbers, dtype=dtype)
        levels = dict(zip(numbers, NoiseLevel(path, times_S, sigma_data, device).each(), strict=True))
        if device.type == "cuda":  # they are read on other streams, too, which would not wait for this one
            for level in levels.values():
                _ = level.rates
            torch.cuda.current_stream(device).synchronize()
        return levels


class Prediction(NamedTuple):
    """A parameterisation: what a network predicts, and how x0 follows from it."""

    x0: Callable[[Tensor, Tensor, NoiseLevel], Tensor]
    """(x, prediction, level) -> x0."""
    target: Callable[[Tensor, Tensor, NoiseLevel], Tensor]
    """(x0, eps, level) -> the right prediction."""
    unit: Callable[[NoiseLevel], Tensor] = lambda at: torch.ones_like(at.alpha)
    """About the root mean square of the target, by which a network's output is multiplied."""


def _velocity_x0(x: Tensor, u: Tensor, at: NoiseLevel) -> Tensor:
    d_alpha, d_sigma = at.rates
    return (d_sigma * x - at.sigma * u) / (at.alpha * d_sigma - d_alpha * at.sigma)


def _edm_x0(x: Tensor, F: Tensor, at: NoiseLevel) -> Tensor:
    # c_skip and c_out of Karras et al. 2022, table 1, for x = alpha (x0 + sigma / alpha eps)
    return (at.alpha * at.sigma_data**2 * x + at.sigma * at.sigma_data * at.spread * F) / at.spread**2


def _edm_target(x0: Tensor, eps: Tensor, at: NoiseLevel) -> Tensor:
    return (at.sigma * x0 - at.alpha * at.sigma_data**2 * eps) / (at.sigma_data * at.spread)


PREDICTIONS = {
    # Ho et al. 2020, equation 15
    "eps": Prediction(lambda x, eps, at: (x - at.sigma * eps) / at.alpha, lambda x0, eps, at: eps),
    "x0": Prediction(lambda x, x0, at: x0, lambda x0, eps, at: x0),
    # Salimans & Ho 2022, section 4: v = alpha eps - sigma x0
    "v": Prediction(lambda x, v, at: (at.alpha * x - at.sigma * v) / (at.alpha**2 + at.sigma**2),
                    lambda x0, eps, at: at.alpha * eps - at.sigma * x0,
                    lambda at: (at.alpha**2 + at.sigma**2).sqrt()),
    # Song et al. 2021, equation 7: the gradient of log p_t(x | x0); they too divide the network's output by sigma
    "score": Prediction(lambda x, score, at: (x + at.sigma**2 * score) / at.alpha,
                        lambda x0, eps, at: -eps / at.sigma, lambda at: 1 / at.sigma),
    # Lipman et al. 2023, equation 13: dx / dt along the path
    "velocity": Prediction(_velocity_x0, lambda x0, eps, at: at.rates[0] * x0 + at.rates[1] * eps,
                           lambda at: (at.rates[0] ** 2 + at.rates[1] ** 2).sqrt()),
    # Karras et al. 2022, equation 7 and table 1
    "edm": Prediction(_edm_x0, _edm_target),
}
NEEDS_SIGNAL = ("eps", "score")  # predictions that do not determine x0 where alpha is 0


P_MEAN, P_STD = -1.2, 1.2  # Karras et al. 2022, table 1
GAMMA = 5.0  # Hang et al. 2023, section 4.2

Density = Callable[[NoisePath, int, torch.Generator], Tensor]
Weight = Callable[[Tensor, NoiseLevel], Tensor]


def _uniform(path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Ho et al. 2020, algorithm 1."""
    return torch.rand(size, generator=generator)


def _log_normal(path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Karras et al. 2022, table 1: ln(sigma / alpha) is normal."""
    return path.time_of(-2 * (P_MEAN + P_STD * torch.randn(size, generator=generator)))


DENSITIES: dict[str, Density] = {"uniform": _uniform, "log-normal": _log_normal}

# Weights of the squared error of x0. `c` is the change of x0 per change of the network's output.
WEIGHTS: dict[str, Weight] = {
    "uniform": lambda c, at: 1 / c**2,  # weight 1 for the network's own output: Ho et al. 2020, equation 14
    "min-snr": lambda c, at: at.snr.clamp(max=GAMMA),  # Hang et al. 2023, equation 10
    "truncated-snr": lambda c, at: at.snr.clamp(min=1),  # Salimans & Ho 2022, section 4
    "edm": lambda c, at: at.snr + 1 / at.sigma_data**2,  # Karras et al. 2022, table 1
}


def sample_times(density: str, path: NoisePath, size: int, generator: torch.Generator) -> Tensor:
    """Training times (size,), snapped to the levels of the path."""
    return path.snap(DENSITIES[density](path, size, generator))


def loss_weight(weight: str, prediction: Prediction, at: NoiseLevel) -> Tensor:
    """The weight (R, 1, 1) of the squared error of the network's output."""
    c = prediction.x0(torch.zeros_like(at.alpha), prediction.unit(at), at).abs()
    return c**2 * WEIGHTS[weight](c, at)


@dataclass(frozen=True)
class Preconditioned:
    """A denoiser D(x; t), as its network is called: x0 from what it predicts (Karras et al. 2022, equation 7).

    The network sees x_t divided by its spread (c_in of their table 1), and in x_t the known entries clean; they also
    come as inputs of their own, with their mask.
    """

    network: nn.Module
    path: NoisePath
    prediction: Prediction
    sigma_data: float = 1.0
    bound: float | None = None
    """Bound on |x0|, in normalised units; None is no bound."""

    def output(self, x_t: Tensor, at: NoiseLevel, rows: Microbatch) -> Tensor:
        """F (R, H, D), the network's output in training."""
        return self.network(x_t / at.spread, rows.x0 * rows.known, rows.known, at.t_R, rows.context)

    def x0(self, x_t: Tensor, F: Tensor, at: NoiseLevel) -> Tensor:
        """x0 (R, H, D) from the network's output F on x_t (c_skip and c_out of Karras et al. 2022)."""
        x0 = self.prediction.x0(x_t, self.prediction.unit(at) * F, at)
        if self.bound is not None:
            x0 = x0.clamp(-self.bound, self.bound)
        return x0

    def __call__(self, x: Tensor, t_R: Tensor, rows: Microbatch) -> Tensor:
        """x0 (R, H, D) of x (R, H, D), with exact known entries; x itself where t is 0. Times may be on the CPU."""
        at, x_t = NoiseLevel(self.path, t_R, self.sigma_data, x.device), rows.held(x)
        x0 = self.x0(x_t, self.output(x_t, at, rows), at)
        x0 = torch.where(at.t_R[:, None, None] > 0, x0, x_t)
        return torch.where(rows.known, rows.x0, x0)


def denoising_loss(D: Preconditioned, rows: Microbatch, eps: Tensor, at: NoiseLevel, weight: str,
                   score: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """w(t) ||F(x_t; t) - F*||^2, the mean over the unknown real entries (Ho et al. 2020, equation 14; Karras et al.
    2022, equation 8), minus the `score` of x0 as it is denoised, if there is one: a scalar."""
    x_t = rows.held(at.noised(rows.x0, eps))
    F = D.output(x_t, at, rows)
    F_target = D.prediction.target(rows.x0, eps, at) / D.prediction.unit(at)
    square = (F - F_target) ** 2 * loss_weight(weight, D.prediction, at)
    loss = rows.average(square)
    if score is not None:
        loss = loss - score(D.x0(x_t, F, at))
    return loss


class DenoisingModel(Protocol):
    """A model that denoises, such as `Diffusion`: what likelihood and scores need of it."""

    spec: TrajectorySpec
    path: NoisePath
    normalizer: Normalizer

    def denoise(self, values: Tensor, mask: Tensor, context: Tensor | None = None, *, times: Tensor | None = None,
                clipped: bool = True) -> Denoise:
        """D given the known entries, in normalised units, and the context in its own ones."""
        ...
