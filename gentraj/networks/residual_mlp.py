"""A residual perceptron over the whole window, for short windows (IDQL: Hansen-Estruch et al. 2023, appendix E)."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from ..config import settings
from .embedding import FactoredNetwork, Frequencies

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "mish": nn.Mish}


@settings
class ResidualMLPConfig:
    """Layer-normalised residual blocks on a flattened window: a transition, a policy's action or a short plan."""

    width: PositiveInt = 256
    """Number of hidden features."""
    depth: PositiveInt = 3
    """Number of blocks; each has a hidden layer of four times the width."""
    frequencies: Frequencies = 4
    """Number of Fourier frequencies of the inputs; 0 is none."""
    activation: Literal["silu", "mish"] = "silu"
    """Activation. On a CPU Mish takes about as long as the matrix products around it, and SiLU takes little time."""


class ResidualMLP(FactoredNetwork):
    """A residual perceptron. Unlike IDQL's it has no dropout, which would use the global random number generator."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: ResidualMLPConfig):
        activation = ACTIVATIONS[config.activation]
        super().__init__(dim, context_dim, config.width, config.frequencies, activation=activation)
        self.first = nn.Linear(horizon * self.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config.width, activation) for _ in range(config.depth))
        self.out = nn.Sequential(nn.LayerNorm(config.width), activation(), nn.Linear(config.width, horizon * dim))

    def body(self, features_RHF: Tensor, projection_RM: Tensor) -> Tensor:
        h = self.first(features_RHF.flatten(1)) + projection_RM
        for block in self.blocks:
            h = block(h)
        return self.out(h).unflatten(1, (features_RHF.shape[1], -1))


class Block(nn.Sequential):
    """A residual block: layer normalisation, then a perceptron."""

    def __init__(self, width: int, activation: type[nn.Module]):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))

    def forward(self, h_RW: Tensor) -> Tensor:
        return h_RW + super().forward(h_RW)
