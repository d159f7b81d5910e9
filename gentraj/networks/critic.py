"""Perceptrons that value things, several side by side."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Ensemble(nn.Module):
    """(R, inputs) -> (E, R): `members` perceptrons of their own weights, layer-normalised between layers.

    Without the normalisation values of actions that the data lack grow without bound (Ball et al. 2023, section 4.2).
    They give start + unit * what the last layer says: before they have learnt about `start`, and a step of an optimiser
    moves values of any size by as large a share of them. Computed in float32 whatever the training is: bfloat16 tells
    values near 100 apart by halves.
    """

    start: Tensor
    unit: Tensor

    def __init__(self, inputs: int, width: int, depth: int, members: int, start: float = 0.0):
        super().__init__()
        sizes = list(pairwise([inputs, *[width] * depth, 1]))
        bounds = [1 / math.sqrt(i) for i, _ in sizes]
        self.weight = nn.ParameterList(torch.empty(members, i, o).uniform_(-b, b)
                                       for (i, o), b in zip(sizes, bounds, strict=True))
        self.bias = nn.ParameterList(torch.empty(members, 1, o).uniform_(-b, b)
                                     for (_, o), b in zip(sizes, bounds, strict=True))
        self.register_buffer("start", torch.tensor(float(start)))
        self.register_buffer("unit", torch.tensor(max(1.0, abs(start) / 2)))
        with torch.no_grad():
            for last in (self.weight[-1], self.bias[-1]):
                last.div_(self.unit)

    def forward(self, x_RI: Tensor) -> Tensor:
        with torch.autocast(x_RI.device.type, enabled=False):
            h = x_RI.float().expand(len(self.weight[0]), *x_RI.shape)
            for weight, bias in zip(self.weight[:-1], self.bias[:-1], strict=True):
                h = F.relu(F.layer_norm(torch.baddbmm(bias, h, weight), weight.shape[-1:]))
            return self.start + self.unit * torch.baddbmm(self.bias[-1], h, self.weight[-1])[..., 0]
