"""The temporal U-Net of Diffuser (Janner et al. 2022, section 3.1 and appendix C), with the known entries as inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import require
from .fourier import fourier, width


@dataclass(frozen=True)
class TemporalUNetConfig:
    """Convolutions over time at `len(multipliers)` resolutions; each halves the horizon of the one before."""

    width: int = 32
    """Channels of the finest level."""
    multipliers: tuple[int, ...] = (1, 2, 4)
    """Channels of each level, in units of the width."""
    kernel: int = 5
    """Rows that a convolution sees; odd."""
    frequencies: int = 4
    """Fourier features of the inputs; 0 gives Diffuser's network."""

    def __post_init__(self) -> None:
        require(self, width=(1, 1e5), kernel=(1, 1e3), frequencies=(0, 16))
        if self.kernel % 2 == 0 or not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"TemporalUNetConfig has kernel {self.kernel} and multipliers {self.multipliers}; an odd "
                             "kernel and positive multipliers are expected")


class TemporalUNet(nn.Module):
    """Noisy trajectory, known entries and noise level -> a prediction of the same shape.

    Raises ValueError when the horizon cannot be halved at every level.
    """

    def __init__(self, dim: int, horizon: int, context_dim: int, config: TemporalUNetConfig):
        super().__init__()
        check_horizon(horizon, 2 ** (len(config.multipliers) - 1))
        embed = config.width
        self.frequencies = config.frequencies
        channels = [2 * width(dim, config.frequencies) + dim, *(config.width * m for m in config.multipliers)]
        self.time = nn.Sequential(SinusoidalEmbedding(embed), nn.Linear(embed, 4 * embed), nn.Mish(),
                                  nn.Linear(4 * embed, embed))
        self.context = nn.Linear(context_dim, embed) if context_dim else None
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(Stage(i, o, embed, config.kernel) for i, o in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(o, o, 3, 2, 1) for _, o in pairs[:-1])
        self.middle = Stage(channels[-1], channels[-1], embed, config.kernel)
        self.up = nn.ModuleList(Stage(2 * o, i, embed, config.kernel) for i, o in reversed(pairs[1:]))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(i, i, 4, 2, 1) for i, _ in reversed(pairs[1:]))
        self.out = nn.Sequential(ConvBlock(channels[1], channels[1], config.kernel), nn.Conv1d(channels[1], dim, 1))

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Tensor:
        """`known_RHD` holds the known values and 0 elsewhere; `t_R` in [0, 1] may have one row for all."""
        embedding = self.time(t_R)
        if self.context is not None and context_RC is not None:
            embedding = embedding + self.context(context_RC)
        values = [fourier(x_RHD, self.frequencies), fourier(known_RHD, self.frequencies), mask_RHD.to(x_RHD.dtype)]
        h = torch.cat(values, dim=-1).transpose(1, 2)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, embedding)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, embedding)
        for stage, grow in zip(self.up, self.grow, strict=True):  # as in Diffuser, the finest level has no skip
            h = grow(stage(torch.cat([h, skips.pop()], dim=1), embedding))
        return self.out(h).transpose(1, 2)


class Stage(nn.Module):
    """Two residual blocks at one resolution."""

    def __init__(self, channels_in: int, channels_out: int, embed: int, kernel: int):
        super().__init__()
        self.first = ResidualTemporalBlock(channels_in, channels_out, embed, kernel)
        self.second = ResidualTemporalBlock(channels_out, channels_out, embed, kernel)

    def forward(self, h_RCH: Tensor, embedding_RE: Tensor) -> Tensor:
        return self.second(self.first(h_RCH, embedding_RE), embedding_RE)


class ResidualTemporalBlock(nn.Module):
    """Two convolutions with the noise level added between them, beside a residual path."""

    def __init__(self, channels_in: int, channels_out: int, embed: int, kernel: int):
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, kernel)
        self.second = ConvBlock(channels_out, channels_out, kernel)
        self.embed = nn.Linear(embed, channels_out)
        self.skip = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h_RCH: Tensor, embedding_RE: Tensor) -> Tensor:
        shift = self.embed(F.mish(embedding_RE))[:, :, None]
        return self.second(self.first(h_RCH) + shift) + self.skip(h_RCH)


class ConvBlock(nn.Sequential):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        groups = math.gcd(8, channels_out)
        super().__init__(nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2),
                         nn.GroupNorm(groups, channels_out), nn.Mish())


class SinusoidalEmbedding(nn.Module):
    """Position encoding (Vaswani et al. 2017) of 1000 t, for t in [0, 1]."""

    frequency: Tensor

    def __init__(self, dim: int):
        super().__init__()
        frequency = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / max(dim // 2 - 1, 1))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, t_R: Tensor) -> Tensor:
        angle = 1000 * t_R[:, None] * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def check_horizon(horizon: int, factor: int) -> None:
    """Raises ValueError naming the nearest horizons that `factor` divides."""
    if horizon % factor:
        below = horizon // factor * factor
        near = " or ".join(str(h) for h in (below, below + factor) if h)
        raise ValueError(f"horizon {horizon} cannot be halved {int(math.log2(factor))} times; use {near}")
