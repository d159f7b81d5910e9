"""Ensembles of value networks: of transitions, and of whole plans."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dit import Block
from .embedding import SinusoidalEmbedding
from .mlp import EnsembleMLP


class ValueEnsemble(EnsembleMLP):
    """(R, inputs) -> (E, R).

    Without the normalisation values of actions that the data lack grow without bound (Ball et al. 2023, section 4.2).
    They give start + unit * what the last layer says: before they have learnt about `start`, and a step of an optimiser
    moves values of any size by as large a share of them.
    """

    start: Tensor
    unit: Tensor

    def __init__(self, inputs: int, width: int, depth: int, members: int, start: float = 0.0):
        super().__init__([inputs, *[width] * depth, 1], members)
        self.register_buffer("start", torch.tensor(float(start)))
        self.register_buffer("unit", torch.tensor(max(1.0, abs(start) / 2)))
        with torch.no_grad():
            for last in (self.weight[-1], self.bias[-1]):
                last.div_(self.unit)

    def forward(self, x_RI: Tensor) -> Tensor:
        return self.start + self.unit * super().forward(x_RI)[..., 0]


class PlanPerceptron(ValueEnsemble):
    """Perceptrons on the whole plan, the noise beside it."""

    def __init__(self, dim: int, horizon: int, width: int, depth: int, members: int):
        super().__init__(horizon * dim + 1, width, depth, members)

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        return super().forward(torch.cat([z_RHD.flatten(1), sigma_R[:, None]], -1))


class PlanTransformer(nn.Module):
    """Attention between the timesteps of a plan, as Diffusion Veteran values it (Lu et al. 2025), in the blocks of the
    DiT.

    The members share it and differ in what they make of the mean of its rows.
    """

    position_HW: Tensor

    def __init__(self, dim: int, horizon: int, width: int, depth: int, heads: int, members: int):
        super().__init__()
        position_HW = SinusoidalEmbedding(width, scale=1.0)(torch.arange(horizon))
        self.register_buffer("position_HW", position_HW, persistent=False)
        self.tokens = nn.Linear(dim, width)
        self.noise = nn.Sequential(SinusoidalEmbedding(width), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.members = ValueEnsemble(width, width, 1, members)

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        h_RHW, noise_R1W = self.tokens(z_RHD) + self.position_HW, self.noise(sigma_R)[:, None]
        for block in self.blocks:
            h_RHW = block(h_RHW, noise_R1W)
        return self.members(h_RHW.mean(1))
