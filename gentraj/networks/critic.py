"""Ensembles of value networks, for transitions and for whole plans."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .dit import Block
from .embedding import SinusoidalEmbedding
from .mlp import EnsembleMLP


class ValueEnsemble(EnsembleMLP):
    """An ensemble of value functions, (R, inputs) -> (E, R).

    Without layer normalisation the values of actions that are not in the data would grow without bound (Ball et al.
    2023, section 4.2). The values are start + unit * output of the last layer: they begin near `start`, and an
    optimiser step changes large and small values by about the same fraction.
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
    """The values (E, R) of plans z (R, H, D) with noise sigma (R,), by perceptrons on the flattened plan."""

    def __init__(self, dim: int, horizon: int, width: int, depth: int, members: int):
        super().__init__(horizon * dim + 1, width, depth, members)

    def forward(self, z_RHD: Tensor, sigma_R: Tensor) -> Tensor:
        return super().forward(torch.cat([z_RHD.flatten(1), sigma_R[:, None]], -1))


class PlanTransformer(nn.Module):
    """The values (E, R) of plans z (R, H, D) with noise sigma (R,), by a transformer over timesteps.

    Diffusion Veteran values plans by attention (Lu et al. 2025); the blocks are those of the DiT. The members of the
    ensemble share the transformer, and each has its own perceptron on the mean over the timesteps.
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
            h_RHW = block(h_RHW, block.modulation(noise_R1W))
        return self.members(h_RHW.mean(1))
