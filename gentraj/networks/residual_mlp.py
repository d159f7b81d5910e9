"""A residual perceptron over the whole window, for short windows (IDQL: Hansen-Estruch et al. 2023, appendix E)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..config import require, require_choice
from .embedding import FactoredNetwork

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "mish": nn.Mish}


@dataclass(frozen=True)
class ResidualMLPConfig:
    """Layer-normalised residual blocks on a flattened window: a transition, a policy's action or a short plan.

    Raises ValueError for a setting outside its range.
    """

    width: int = 256
    """Number of hidden features."""
    depth: int = 3
    """Number of blocks; each has a hidden layer of four times the width."""
    frequencies: int = 4
    """Number of Fourier frequencies of the inputs; 0 is none."""
    activation: Literal["silu", "mish"] = "silu"
    """Activation. On a CPU Mish takes about as long as the matrix products around it, and SiLU takes little time."""

    def __post_init__(self) -> None:
        require(self, width=(1, 1e5), depth=(1, 1e3), frequencies=(0, 16))
        require_choice(self, activation=ACTIVATIONS)


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
