"""The diffusion transformer over time steps: every row of a trajectory is a token (Peebles & Xie 2023, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import require
from .attention import SelfAttention
from .embedding import SinusoidalEmbedding, TrajectoryNetwork


@dataclass(frozen=True)
class DiTConfig:
    """A transformer whose blocks are modulated by the noise level and the context; any horizon fits."""

    width: int = 96
    """Features of a token."""
    depth: int = 2
    """Blocks."""
    heads: int = 4
    """Attention heads; they divide the width."""
    frequencies: int = 4
    """Fourier features of the inputs."""

    def __post_init__(self) -> None:
        require(self, width=(1, 1e5), depth=(1, 1e3), heads=(1, 1e3), frequencies=(0, 16))
        if self.width % self.heads:
            raise ValueError(f"DiTConfig has width {self.width} and {self.heads} heads; give a multiple of the heads")


class DiT(TrajectoryNetwork):
    """Untrained, it predicts 0 everywhere: adaLN-zero and the last layer start at zero, as in the paper."""

    position_HW: Tensor

    def __init__(self, dim: int, horizon: int, context_dim: int, config: DiTConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies)
        position_HW = SinusoidalEmbedding(config.width, scale=1.0)(torch.arange(horizon))
        self.register_buffer("position_HW", position_HW, persistent=False)
        self.tokens = nn.Linear(self.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.modulation = zero(nn.Linear(config.width, 2 * config.width))
        self.out = zero(nn.Linear(config.width, dim))

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Tensor:
        embedding_R1W = F.silu(self.embedding(t_R, context_RC))[:, None]
        h = self.tokens(self.features(x_RHD, known_RHD, mask_RHD)) + self.position_HW
        for block in self.blocks:
            h = block(h, embedding_R1W)
        return self.out(modulate(h, *self.modulation(embedding_R1W).chunk(2, dim=-1)))


class Block(nn.Module):
    """Attention between the rows, then a perceptron in each; both start closed by a gate of zero (adaLN-zero)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.modulation = zero(nn.Linear(width, 6 * width))
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, h_RHW: Tensor, embedding_R1W: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding_R1W).chunk(6, dim=-1)
        h = h_RHW + gate1 * self.attention(modulate(h_RHW, shift1, scale1))
        return h + gate2 * self.mlp(modulate(h, shift2, scale2))


def modulate(h_RHW: Tensor, shift_R1W: Tensor, scale_R1W: Tensor) -> Tensor:
    """Layer normalisation whose scale and shift are given (adaLN)."""
    return F.layer_norm(h_RHW, h_RHW.shape[-1:]) * (1 + scale_R1W) + shift_R1W


def zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
