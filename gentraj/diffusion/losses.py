"""What training minimises: noise-level densities and loss weights around the squared error of a prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .denoiser import Level, Prediction
from .paths import NoisePath

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
