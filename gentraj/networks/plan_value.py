"""Networks that value plans: (plan z_RHD, noise sigma_R) -> (E, R), `members` values of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .critic import ValueEnsemble
from .dit import Block
from .embedding import SinusoidalEmbedding


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
