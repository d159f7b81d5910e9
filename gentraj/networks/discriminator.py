"""A temporal discriminator, which judges a trajectory as a whole and the surroundings of each of its timesteps."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ..config import settings
from .embedding import Frequencies, TrajectoryNetwork
from .temporal_unet import Multipliers, check_horizon, check_kernel

LEAST_VARIANCE = 1e-8  # keeps the square root of a variance differentiable


@settings
class DiscriminatorConfig:
    """Residual convolutions over time without normalisation (Huang et al. 2024), at several resolutions."""

    width: PositiveInt = 32
    """Number of channels at the finest level."""
    multipliers: Multipliers = (1, 2, 4)
    """Number of channels of each level as multiples of the width; each further level halves the timesteps."""
    kernel: PositiveInt = 5
    """Number of timesteps in a convolution's kernel; odd."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs; 0 is none."""
    patches: bool = True
    """Whether the discriminator also judges the surroundings of each timestep, at the finest level."""
    minibatch_std: bool = True
    """Whether the discriminator sees the standard deviation over the batch (Karras et al. 2018, section 3)."""
    spectral_norm: bool = False
    """Whether every weight, as a matrix (out, in * kernel), has spectral norm 1 (Miyato et al. 2018, section 2)."""

    def __post_init__(self) -> None:
        check_kernel(self.kernel)


class Logits(NamedTuple):
    """The logits of a discriminator, higher for data."""

    whole_R: Tensor
    """Logits of whole trajectories."""
    patch_RH: Tensor | None
    """Logits of the surroundings of each timestep; None without patches."""


class Discriminator(TrajectoryNetwork):
    """A conditional discriminator of trajectories.

    It is called as `(x_RHD, known_RHD, mask_RHD, t_R, context_RC)`, as the generators are, where `t_R` is the noise
    level of x. The condition (known entries, noise level, context) is embedded once and shifts every block. The logit
    of the whole trajectory is psi(phi) + mean(phi * V embedding) (Miyato & Koyama 2018, equation 3, divided by the
    number of channels). Patch logits do not depend on the rest of the batch; with `minibatch_std` the logit of the
    whole trajectory does. Raises ValueError if the horizon cannot be halved at every level.
    """

    def __init__(self, dim: int, horizon: int, context_dim: int, config: DiscriminatorConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies)
        check_horizon(horizon, 2 ** (len(config.multipliers) - 1))
        self.config, channels = config, [config.width * m for m in config.multipliers]
        last = channels[-1]
        self.first = Convolution(self.num_features, channels[0], config.kernel)
        self.condition = Convolution(self.num_features - self.num_noisy, config.width, 1)
        self.blocks = nn.ModuleList(Block(i, o, config) for i, o in pairwise([channels[0], *channels]))
        self.patch = Convolution(channels[0], 1, 1) if config.patches else None
        coarsest = horizon // 2 ** (len(channels) - 1)
        self.gather = nn.Linear((last + config.minibatch_std) * coarsest, last)
        self.psi, self.project = nn.Linear(last, 1), nn.Linear(config.width, last, bias=False)
        if config.spectral_norm:
            for module in [m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d)]:
                register_parametrization(module, "weight", UnitNorm())

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Logits:
        features = self.features(x_RHD, self.known_features(known_RHD, mask_RHD)).transpose(1, 2)
        condition = self.condition(features[:, self.num_noisy :])
        embedding_RE = self.embedding(t_R, context_RC) + F.leaky_relu(condition, 0.2).mean(-1)
        h, patch = self.first(features), None
        for level, block in enumerate(self.blocks):
            if level:
                h = F.avg_pool1d(h, 2)
            h = block(h, embedding_RE)
            if level == 0 and self.patch is not None:
                patch = self.patch(F.leaky_relu(h, 0.2))[:, 0]
        if self.config.minibatch_std:
            h = torch.cat([h, minibatch_std(h)], 1)
        phi_RE = F.leaky_relu(self.gather(F.leaky_relu(h, 0.2).flatten(1)), 0.2)
        whole = self.psi(phi_RE)[:, 0] + (phi_RE * self.project(embedding_RE)).mean(-1)
        return Logits(whole, patch)


class Convolution(nn.Conv1d):
    """A convolution over time, with zeros beyond both ends. One timestep meets only the kernel's centre: as a matrix
    product that takes a third of the time, and of its second derivative."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int):
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2)

    def forward(self, h_RCH: Tensor) -> Tensor:
        if h_RCH.shape[2] > 1:
            return super().forward(h_RCH)
        return F.linear(h_RCH[..., 0], self.weight[..., self.kernel_size[0] // 2], self.bias)[..., None]


class Block(nn.Module):
    """A residual block of two convolutions, with a shift by the embedding between them."""

    def __init__(self, channels_in: int, channels_out: int, config: DiscriminatorConfig):
        super().__init__()
        self.first = Convolution(channels_in, channels_out, config.kernel)
        self.second = Convolution(channels_out, channels_out, config.kernel)
        self.embed = nn.Linear(config.width, channels_out)
        self.skip = Convolution(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h_RCH: Tensor, embedding_RE: Tensor) -> Tensor:
        shift = self.embed(embedding_RE)[:, :, None]
        h = self.first(F.leaky_relu(h_RCH, 0.2)) + shift
        return self.skip(h_RCH) + self.second(F.leaky_relu(h, 0.2))


class UnitNorm(nn.Module):
    """Divides a weight, as a matrix (out, in * kernel), by its largest singular value (Miyato et al. 2018, equation 8).

    The singular value is exact. With one power iteration per step, norms were up to 1.1 in training.
    """

    def forward(self, weight: Tensor) -> Tensor:
        return weight / torch.linalg.matrix_norm(weight.flatten(1), 2)


def minibatch_std(h_RCH: Tensor) -> Tensor:
    """The standard deviation over the batch, averaged over channels and timesteps, as a channel (R, 1, H').

    This is the minibatch standard deviation of Karras et al. 2018, section 3.
    """
    spread = (h_RCH.var(0, correction=0) + LEAST_VARIANCE).sqrt().mean()
    return spread.expand(len(h_RCH), 1, h_RCH.shape[2])
