"""The temporal U-Net of Diffuser (Janner et al. 2022, section 3.1 and appendix C), with the known entries as inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import require
from .attention import SelfAttention
from .embedding import TIME_SCALE, TrajectoryNetwork


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
    attention: bool = False
    """Self-attention over time at the coarsest level."""
    time_scale: float = TIME_SCALE
    """The noise level is embedded as time_scale * t + time_shift."""
    time_shift: float = 0.0
    """-1 where time_scale is the number of levels: then Diffuser's integers, 0 the least noisy."""

    def __post_init__(self) -> None:
        require(self, width=(1, 1e5), kernel=(1, 1e3), frequencies=(0, 16), time_scale=(0, 1e9), time_shift=(-1e9, 1e9))
        if self.kernel % 2 == 0 or not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"TemporalUNetConfig has kernel {self.kernel} and multipliers {self.multipliers}; an odd "
                             "kernel and positive multipliers are expected")


class TemporalUNet(TrajectoryNetwork):
    """Raises ValueError when the horizon cannot be halved at every level."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: TemporalUNetConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies,
                         time_scale=config.time_scale, time_shift=config.time_shift)
        check_horizon(horizon, 2 ** (len(config.multipliers) - 1))
        self.config, embed = config, config.width
        channels = [self.num_features, *(config.width * m for m in config.multipliers)]
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(Stage(i, o, embed, config.kernel) for i, o in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(o, o, 3, 2, 1) for _, o in pairs[:-1])
        self.middle = Stage(channels[-1], channels[-1], embed, config.kernel)
        self.up = nn.ModuleList(Stage(2 * o, i, embed, config.kernel) for i, o in reversed(pairs[1:]))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(i, i, 4, 2, 1) for i, _ in reversed(pairs[1:]))
        self.out = nn.Sequential(ConvBlock(channels[1], channels[1], config.kernel), nn.Conv1d(channels[1], dim, 1))
        self.attention = TimeAttention(channels[-1]) if config.attention else nn.Identity()

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Tensor:
        embedding = self.embedding(t_R, context_RC)
        h = self.features(x_RHD, known_RHD, mask_RHD).transpose(1, 2)
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, embedding)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(self.attention(h), embedding)
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


class TimeAttention(nn.Module):
    """Self-attention between the rows, beside a residual path."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, math.gcd(4, channels))

    def forward(self, h_RCH: Tensor) -> Tensor:
        return h_RCH + self.attention(self.norm(h_RCH.transpose(1, 2))).transpose(1, 2)


def check_horizon(horizon: int, factor: int) -> None:
    """Raises ValueError naming the nearest horizons that `factor` divides."""
    if horizon % factor:
        below = horizon // factor * factor
        near = " or ".join(str(h) for h in (below, below + factor) if h)
        raise ValueError(f"horizon {horizon} cannot be halved {int(math.log2(factor))} times; use {near}")
