"""A variational autoencoder of trajectories (Kingma & Welling 2014), whose latents have fewer timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import require
from .temporal_unet import check_horizon

LOG_VARIANCE = 20.0  # bound on the logarithm, so that no exponential overflows


@dataclass(frozen=True)
class VAEConfig:
    """An encoder of convolutions over time that halve the number of timesteps, and a decoder that doubles it again."""

    latent: int = 8
    """Dimension of the latents at each latent timestep."""
    halvings: int = 1
    """Number of halvings; a latent timestep stands for 2^halvings timesteps of the trajectory."""
    width: int = 32
    """Number of channels."""
    kernel: int = 5
    """Number of timesteps in a convolution's kernel; odd."""

    def __post_init__(self) -> None:
        require(self, latent=(1, 1e5), halvings=(0, 16), width=(1, 1e5), kernel=(1, 1e3))
        if self.kernel % 2 == 0:
            raise ValueError(f"VAEConfig.kernel is {self.kernel}; an odd number is expected")

    @property
    def factor(self) -> int:
        """The number of timesteps of a trajectory in one latent timestep."""
        return 2**self.halvings


class TemporalVAE(nn.Module):
    """Maps trajectories (R, H, D) to latents (R, L, Z) and back, L = H / 2^halvings. No row depends on another row.

    Raises ValueError if the horizon cannot be halved that often.
    """

    def __init__(self, dim: int, horizon: int, config: VAEConfig):
        super().__init__()
        check_horizon(horizon, config.factor)
        width, kernel, half = config.width, config.kernel, config.kernel // 2
        shrink = [layer for _ in range(config.halvings)
                  for layer in (Residual(width, kernel), nn.Conv1d(width, width, 4, 2, 1))]
        grow = [layer for _ in range(config.halvings)
                for layer in (Residual(width, kernel), nn.ConvTranspose1d(width, width, 4, 2, 1))]
        self.encoder = nn.Sequential(nn.Conv1d(2 * dim, width, kernel, padding=half), *shrink, Residual(width, kernel),
                                     nn.Conv1d(width, 2 * config.latent, 1))
        self.grow = nn.Sequential(nn.Conv1d(config.latent, width, kernel, padding=half), *grow)
        self.known = nn.Conv1d(2 * dim, width, kernel, padding=half)
        self.out = nn.Sequential(Residual(width, kernel), Residual(width, kernel), nn.Conv1d(width, dim, 1))

    def encode(self, x_RHD: Tensor, real_RHD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents, (R, L, Z) each. Entries that are not real are replaced by 0."""
        h = self.encoder(_time_last(x_RHD * real_RHD, real_RHD))
        h = h.to(self.known.weight.dtype)  # latents are data: not in bfloat16 under autocast
        mean, log_variance = h.transpose(1, 2).chunk(2, dim=-1)
        return mean, log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def decode(self, z_RLZ: Tensor, known_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
        """Trajectories (R, H, D) from latents, known values (0 where unknown) and the mask of the known entries."""
        h = self.grow(z_RLZ.transpose(1, 2)) + self.known(_time_last(known_RHD, mask_RHD))
        return self.out(h).transpose(1, 2)


class Residual(nn.Module):
    """A residual block of two convolutions, without normalisation, which would lose the size of the input."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.first = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, h_RCH: Tensor) -> Tensor:
        return h_RCH + self.second(F.mish(self.first(F.mish(h_RCH))))


def _time_last(x_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
    """Values and mask (R, 2D, H), as convolutions take them."""
    return torch.cat([x_RHD, mask_RHD.to(x_RHD.dtype)], dim=-1).transpose(1, 2)
