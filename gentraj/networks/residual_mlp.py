"""A residual perceptron over the whole window, for short ones (IDQL: Hansen-Estruch et al. 2023, appendix E)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..config import require, require_choice
from .embedding import TrajectoryNetwork

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "mish": nn.Mish}


@dataclass(frozen=True)
class ResidualMLPConfig:
    """Layer-normalised residual blocks on the flattened window: a transition, a policy's action, a short plan."""

    width: int = 256
    """Features of the window."""
    depth: int = 3
    """Blocks; each widens to four times the width and back."""
    frequencies: int = 4
    """Fourier features of the inputs."""
    activation: Literal["silu", "mish"] = "silu"
    """Mish costs a CPU about as much as the matrix products between which it stands, SiLU little."""

    def __post_init__(self) -> None:
        require(self, width=(1, 1e5), depth=(1, 1e3), frequencies=(0, 16))
        require_choice(self, activation=ACTIVATIONS)


class ResidualMLP(TrajectoryNetwork):
    """No dropout, which IDQL has: it draws from the global generator, and a resumed run would differ."""

    def __init__(self, dim: int, horizon: int, context_dim: int, config: ResidualMLPConfig):
        activation = ACTIVATIONS[config.activation]
        super().__init__(dim, context_dim, config.width, config.frequencies, activation=activation)
        self.first = nn.Linear(horizon * self.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config.width, activation) for _ in range(config.depth))
        self.out = nn.Sequential(nn.LayerNorm(config.width), activation(), nn.Linear(config.width, horizon * dim))

    def forward(self, x_RHD: Tensor, known_RHD: Tensor, mask_RHD: Tensor, t_R: Tensor,
                context_RC: Tensor | None = None) -> Tensor:
        h = self.first(self.features(x_RHD, known_RHD, mask_RHD).flatten(1)) + self.embedding(t_R, context_RC)
        for block in self.blocks:
            h = block(h)
        return self.out(h).view(x_RHD.shape)


class Block(nn.Sequential):
    """A perceptron behind a layer normalisation, beside a residual path."""

    def __init__(self, width: int, activation: type[nn.Module]):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))

    def forward(self, h_RW: Tensor) -> Tensor:
        return h_RW + super().forward(h_RW)
