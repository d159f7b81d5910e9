"""Noise paths x_t = alpha(t) x0 + sigma(t) eps, t in [0, 1], with t = 0 clean.

A variance-preserving path of T levels is DDPM's (Ho et al. 2020): level n is t = n / T, and alpha(t)^2 is the paper's
alpha-bar_n = prod (1 - beta_i). Between two levels alpha-bar is interpolated, so every t in [0, 1] may be asked for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, section 3.2


class VPPath:
    """alpha(t)^2 + sigma(t)^2 = 1, from the T betas of a discrete schedule.

    The table stays on the CPU in float64, which not every device has; alpha and sigma come back as t is.
    """

    def __init__(self, betas: Tensor):
        self.levels = len(betas)
        self.alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas.double(), 0)])

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha_bar(t).sqrt().to(t.dtype).to(t.device)

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._alpha_bar(t)).sqrt().to(t.dtype).to(t.device)

    def times(self, steps: int) -> Tensor:
        """(steps + 1,) times from 1 down to 0, evenly spaced and each a trained level."""
        if not 1 <= steps <= self.levels:
            raise ValueError(f"{steps} sampling steps; this path has {self.levels} levels, give 1..{self.levels}")
        return torch.linspace(self.levels, 0, steps + 1).round() / self.levels

    def _alpha_bar(self, t: Tensor) -> Tensor:
        position = t.cpu().double() * self.levels
        level = position.round()  # a level keeps its exact value though t is float32
        position = torch.where((position - level).abs() < 1e-4, level, position)
        below = position.floor().clamp(0, self.levels - 1)
        i, weight = below.long(), position - below
        return torch.lerp(self.alpha_bar[i], self.alpha_bar[i + 1], weight)


def vp_cosine(levels: int) -> VPPath:
    """Nichol & Dhariwal 2021, equation 17, offset s = 0.008."""
    t = torch.arange(levels + 1, dtype=torch.float64) / levels
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return VPPath((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA))


def vp_linear(levels: int) -> VPPath:
    """Ho et al. 2020, section 4: beta from 1e-4 to 0.02 for 1000 levels, rescaled so that the end is as noisy."""
    scale = 1000 / levels
    return VPPath(torch.linspace(scale * 1e-4, scale * 0.02, levels, dtype=torch.float64).clamp(max=MAX_BETA))


PATHS = {"vp-cosine": vp_cosine, "vp-linear": vp_linear}
