"""A variational autoencoder over time: fewer rows, each of a chosen width (Kingma & Welling 2014)."""

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
    """Convolutions over time that halve the rows `halvings` times, and again double them."""

    latent: int = 8
    """Numbers in a latent row."""
    halvings: int = 1
    """A latent row stands for 2^halvings timesteps of the trajectory."""
    width: int = 32
    """Channels."""
    kernel: int = 5
    """Rows that a convolution sees; odd."""

    def __post_init__(self) -> None:
        require(self, latent=(1, 1e5), halvings=(0, 16), width=(1, 1e5), kernel=(1, 1e3))
        if self.kernel % 2 == 0:
            raise ValueError(f"VAEConfig.kernel is {self.kernel}; an odd number is expected")

    @property
    def factor(self) -> int:
        """Rows of a trajectory in one latent row."""
        return 2**self.halvings


class TemporalVAE(nn.Module):
    """Trajectory (R, H, D) <-> latents (R, L, Z), L = H / 2^halvings. No row of the batch depends on another one.

    Raises ValueError when the horizon cannot be halved that often.
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
        """Mean and logarithm of the variance of the latents, (R, L, Z) each; entries that are not real are not seen."""
        h = self.encoder(_rows_last(x_RHD * real_RHD, real_RHD)).float()  # latents are data: float32 under autocast too
        mean, log_variance = h.transpose(1, 2).chunk(2, dim=-1)
        return mean, log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE)

    def decode(self, z_RLZ: Tensor, known_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
        """(R, H, D) from latents and what is known of it: the known values, 0 elsewhere, and their mask."""
        h = self.grow(z_RLZ.transpose(1, 2)) + self.known(_rows_last(known_RHD, mask_RHD))
        return self.out(h).transpose(1, 2)


class Residual(nn.Module):
    """Two convolutions beside a residual path. Not normalised: the size of what passes is what is to be kept."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.first = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.second = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, h_RCH: Tensor) -> Tensor:
        return h_RCH + self.second(F.mish(self.first(F.mish(h_RCH))))


def _rows_last(x_RHD: Tensor, mask_RHD: Tensor) -> Tensor:
    """(R, 2D, H), as convolutions take it."""
    return torch.cat([x_RHD, mask_RHD.to(x_RHD.dtype)], dim=-1).transpose(1, 2)
