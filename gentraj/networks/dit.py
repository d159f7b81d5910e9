"""The diffusion transformer (Peebles & Xie 2023, section 3.2), with the timesteps of a trajectory as its tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from ..config import settings
from .embedding import FactoredNetwork, Frequencies, NetworkConfig, SelfAttention, SinusoidalEmbedding


@settings
class DiTConfig(NetworkConfig):
    """A transformer over timesteps whose blocks are modulated by noise level and context; it takes any horizon."""

    width: PositiveInt = 96
    """Number of features of a token; a multiple of the heads."""
    depth: PositiveInt = 2
    """Number of blocks."""
    heads: PositiveInt = 4
    """Number of attention heads."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs; 0 is none."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"DiTConfig has width {self.width} and {self.heads} heads; give a multiple of the heads "
                             "as the width")


class DiT(FactoredNetwork):
    """The diffusion transformer. An untrained one predicts 0, since adaLN-zero and the last layer start at zero."""

    position_HW: Tensor

    def __init__(self, dim: int, horizon: int, context_dim: int, config: DiTConfig):
        super().__init__(dim, context_dim, config.width, config.frequencies)
        self.width = config.width
        position_HW = SinusoidalEmbedding(config.width, scale=1.0)(torch.arange(horizon))
        self.register_buffer("position_HW", position_HW, persistent=False)
        self.tokens = nn.Linear(self.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.modulation = zero(nn.Linear(config.width, 2 * config.width))
        self.out = zero(nn.Linear(config.width, dim))

    def projection(self, t_R: Tensor, context_RC: Tensor | None) -> Tensor:
        """The shifts, scales and gates of all blocks and of the last layer, (R, 6 W depth + 2 W)."""
        embedding_RW = F.silu(self.embedding(t_R, context_RC))
        modulations = [*(block.modulation for block in self.blocks), self.modulation]
        return torch.cat([modulation(embedding_RW) for modulation in modulations], dim=-1)

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        *blocks_R1M, last_R1M = projection_RM[:, None].split(6 * self.width, dim=-1)
        h = self.tokens(features_RHF) + self.position_HW
        for block, modulation_R1M in zip(self.blocks, blocks_R1M, strict=True):
            h = block(h, modulation_R1M)
        return self.out(modulate(h, *last_R1M.chunk(2, dim=-1)))


class Block(nn.Module):
    """Self-attention over timesteps and a perceptron on each timestep, with gates that start at zero (adaLN-zero)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.modulation = zero(nn.Linear(width, 6 * width))
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, h_RHW: Tensor, modulation_R1M: Tensor) -> Tensor:
        """`modulation_R1M` is `self.modulation` of an embedding (R, 1, width)."""
        of_attention, of_mlp = modulation_R1M.chunk(2, dim=-1)
        return gated(self.mlp, gated(self.attention, h_RHW, of_attention), of_mlp)


def gated(layer: nn.Module, h_RHW: Tensor, modulation_R1M: Tensor) -> Tensor:
    """h + gate * layer(modulated h), where the modulation is shift, scale and gate."""
    *shift_and_scale, gate = modulation_R1M.chunk(3, dim=-1)
    return h_RHW + gate * layer(modulate(h_RHW, *shift_and_scale))


def modulate(h_RHW: Tensor, shift_R1W: Tensor, scale_R1W: Tensor) -> Tensor:
    """Layer normalisation with the given scale and shift (adaLN)."""
    return F.layer_norm(h_RHW, h_RHW.shape[-1:]) * (1 + scale_R1W) + shift_R1W


def zero(layer: nn.Linear) -> nn.Linear:
    """Returns the layer with all its parameters set to 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
