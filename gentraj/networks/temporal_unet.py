"""The temporal U-Net of Diffuser (Janner et al. 2022, section 3.1, appendix C), with known entries as inputs, too.

Inside, activations have the shape (R, C, 1, H) with the channels last in memory, in which trajectories come and
convolutions are fastest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from einops import rearrange
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..config import settings
from .embedding import TIME_SCALE, FactoredNetwork, Frequencies, NetworkConfig, SelfAttention

Multipliers = Annotated[tuple[PositiveInt, ...], MinLen(1)]


@settings
class TemporalUNetConfig(NetworkConfig):
    """A U-Net of convolutions over time at several resolutions."""

    width: PositiveInt = 32
    """Number of channels at the finest level."""
    multipliers: Multipliers = (1, 2, 4)
    """Number of channels of each level as multiples of the width; each further level halves the timesteps."""
    kernel: PositiveInt = 5
    """Number of timesteps in a convolution's kernel; odd."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs; 0, none, is Diffuser's network."""
    attention: bool = False
    """Whether the coarsest level has self-attention over time."""
    time_scale: NonNegativeFloat = TIME_SCALE
    """Scale of the noise level t, which is embedded as time_scale * t + time_shift."""
    time_shift: float = 0.0
    """Shift of the noise level. With -1, and the number of levels as time_scale, levels are embedded as Diffuser's
    integers from 0."""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)


class TemporalUNet(FactoredNetwork):
    """The temporal U-Net of Diffuser. Raises ValueError if the horizon cannot be halved at every level."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: TemporalUNetConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies,
                         time_scale=config.time_scale, time_shift=config.time_shift)
        check_horizon(horizon, 2 ** (len(config.multipliers) - 1))
        self.config, embed = config, config.width
        channels = [self.num_features, *(config.width * m for m in config.multipliers)]
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(Stage(i, o, embed, config.kernel) for i, o in pairs)
        self.shrink = nn.ModuleList(Conv(o, o, 3, 2, 1) for _, o in pairs[:-1])
        self.middle = Stage(channels[-1], channels[-1], embed, config.kernel)
        self.up = nn.ModuleList(Stage(2 * o, i, embed, config.kernel) for i, o in reversed(pairs[1:]))
        self.grow = nn.ModuleList(ConvTranspose(i, i, 4, 2, 1) for i, _ in reversed(pairs[1:]))
        self.out = nn.Sequential(ConvBlock(channels[1], channels[1], config.kernel), Conv(channels[1], dim, 1))
        self.attention = TimeAttention(channels[-1]) if config.attention else nn.Identity()

    def projection(self, t_R: Tensor, context_RC: Tensor | None) -> Tensor:
        """The shifts of all residual blocks, (R, sum of their channels)."""
        embedding = F.mish(self.embedding(t_R, context_RC))
        return torch.cat([block.embed(embedding) for block in self._residual_blocks()], dim=-1)

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        shift_RCs = iter(projection_RM.split([block.embed.out_features for block in self._residual_blocks()], dim=-1))
        h = rearrange(features_RHF, "r h f -> r f 1 h")
        skips = []
        for level, stage in enumerate(self.down):
            h = stage(h, shift_RCs)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(self.attention(h), shift_RCs)
        for stage, grow in zip(self.up, self.grow, strict=True):  # as in Diffuser, the finest level has no skip
            h = grow(stage(torch.cat([h, skips.pop()], dim=1), shift_RCs))
        return rearrange(self.out(h), "r f 1 h -> r h f")

    def _residual_blocks(self) -> list[Any]:
        """All residual blocks in the order in which they are called."""
        return [block for stage in (*self.down, self.middle, *self.up) for block in (stage.first, stage.second)]


class Stage(nn.Module):
    """Two residual blocks at one resolution."""

    def __init__(self, channels_in: int, channels_out: int, embed: int, kernel: int):
        super().__init__()
        self.first = ResidualTemporalBlock(channels_in, channels_out, embed, kernel)
        self.second = ResidualTemporalBlock(channels_out, channels_out, embed, kernel)

    def forward(self, h_RC1H: Tensor, shift_RCs: Iterator[Tensor]) -> Tensor:
        return self.second(self.first(h_RC1H, next(shift_RCs)), next(shift_RCs))


class ResidualTemporalBlock(nn.Module):
    """A residual block of two convolutions, with a shift by an embedding between them."""

    def __init__(self, channels_in: int, channels_out: int, embed: int, kernel: int):
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, kernel)
        self.second = ConvBlock(channels_out, channels_out, kernel)
        self.embed = nn.Linear(embed, channels_out)
        self.skip = Conv(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h_RC1H: Tensor, shift_RC: Tensor) -> Tensor:
        """`shift_RC` is `self.embed` of an embedding."""
        return self.second(self.first(h_RC1H) + shift_RC[:, :, None, None]) + self.skip(h_RC1H)


class ConvBlock(nn.Sequential):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        groups = math.gcd(8, channels_out)
        super().__init__(Conv(channels_in, channels_out, kernel, padding=kernel // 2),
                         nn.GroupNorm(groups, channels_out), nn.Mish())


class Conv(nn.Conv1d):
    """A convolution over time of activations (R, C, 1, H), whose weight (O, C, K) also has the channels last in memory.

    It is computed as a convolution over two axes, for which PyTorch has kernels that work in this memory format.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__(channels_in, channels_out, kernel, stride, padding)
        self.weight = channels_last(self.weight)
        self.strides, self.paddings = (1, stride), (0, padding)

    def forward(self, h_RC1H: Tensor) -> Tensor:
        return F.conv2d(h_RC1H, self.weight[:, :, None], self.bias, self.strides, self.paddings)


class ConvTranspose(nn.ConvTranspose1d):
    """The transposed convolution that belongs to `Conv`."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: int):
        super().__init__(channels_in, channels_out, kernel, stride, padding)
        self.weight = channels_last(self.weight)
        self.strides, self.paddings = (1, stride), (0, padding)

    def forward(self, h_RC1H: Tensor) -> Tensor:
        return F.conv_transpose2d(h_RC1H, self.weight[:, :, None], self.bias, self.strides, self.paddings)


def channels_last(weight_OCK: Tensor) -> nn.Parameter:
    """The same weight with its second axis last in memory."""
    return nn.Parameter(weight_OCK.detach().transpose(1, 2).contiguous().transpose(1, 2))


class TimeAttention(nn.Module):
    """A residual block of self-attention over timesteps."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, math.gcd(4, channels))

    def forward(self, h_RC1H: Tensor) -> Tensor:
        h_RHC = rearrange(h_RC1H, "r c 1 h -> r h c")
        return h_RC1H + rearrange(self.attention(self.norm(h_RHC)), "r h c -> r c 1 h")


def check_kernel(kernel: int) -> None:
    """Raises ValueError for a kernel without a middle."""
    if kernel % 2 == 0:
        raise ValueError(f"the kernel has {kernel} timesteps; an odd number is expected")


def check_horizon(horizon: int, factor: int) -> None:
    """Raises ValueError unless `factor`, a power of 2, divides the horizon; the message names the nearest that fit."""
    if horizon % factor:
        below = horizon // factor * factor
        near = " or ".join(str(h) for h in (below, below + factor) if h)
        raise ValueError(f"horizon {horizon} cannot be halved {int(math.log2(factor))} times; use {near}")
