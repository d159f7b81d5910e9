"""Multilayer perceptrons: a single one, and an ensemble whose members are computed at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them, none after the last."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class EnsembleMLP(nn.Module):
    """An ensemble of `members` perceptrons with layer normalisation: (R, inputs) -> (E, R, outputs).

    It computes in float32 under autocast, too, since bfloat16 resolves values near 100 to 0.5 only.
    """

    def __init__(self, widths: Sequence[int], members: int, activation: Callable[[Tensor], Tensor] = F.relu):
        super().__init__()
        self.activation = activation
        sizes = list(pairwise(widths))
        bounds = [1 / math.sqrt(i) for i, _ in sizes]
        self.weight = nn.ParameterList(torch.empty(members, i, o).uniform_(-b, b)
                                       for (i, o), b in zip(sizes, bounds, strict=True))
        self.bias = nn.ParameterList(torch.empty(members, 1, o).uniform_(-b, b)
                                     for (_, o), b in zip(sizes, bounds, strict=True))

    def forward(self, x_RI: Tensor) -> Tensor:
        with torch.autocast(x_RI.device.type, enabled=False):
            h = x_RI.float().expand(len(self.weight[0]), *x_RI.shape)
            for weight, bias in zip(self.weight[:-1], self.bias[:-1], strict=True):
                h = self.activation(F.layer_norm(torch.baddbmm(bias, h, weight), weight.shape[-1:]))
            return torch.baddbmm(self.bias[-1], h, self.weight[-1])
