"""Multilayer perceptrons: a single one, an ensemble whose members are computed at once, and one of value functions."""

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
            return self.last(self.hidden(x_RI.float()))

    def hidden(self, x_RI: Tensor) -> Tensor:
        """The features (E, R, width) of the last hidden layer."""
        h = x_RI.expand(len(self.weight[0]), *x_RI.shape)
        for weight_EIO, bias_E1O in [*zip(self.weight, self.bias, strict=True)][:-1]:
            h = self.activation(F.layer_norm(torch.baddbmm(bias_E1O, h, weight_EIO), weight_EIO.shape[-1:]))
        return h

    def last(self, h_ERW: Tensor) -> Tensor:
        """(E, R, outputs) from the features of the last hidden layer."""
        weight, bias = self.weight[-1], self.bias[-1]
        if weight.shape[-1] == 1:  # a product with one column is several times as slow as this sum
            return (h_ERW * weight.mT).sum(-1, keepdim=True) + bias
        return torch.baddbmm(bias, h_ERW, weight)


class ValueEnsemble(EnsembleMLP):
    """An ensemble of value functions, (R, inputs) -> (E, R), each the mean of its `outputs` numbers.

    Without layer normalisation the values of actions that are not in the data would grow without bound (Ball et al.
    2023, section 4.2). The values are start + unit * output of the last layer: they begin near `start`, and an
    optimiser step changes large and small values by about the same fraction. Under autocast the hidden layers are
    computed in bfloat16, and the values in float32.
    """

    start: Tensor
    unit: Tensor

    def __init__(self, inputs: int, width: int, depth: int, members: int, start: float = 0.0,
                 outputs: int = 1):
        super().__init__([inputs, *[width] * depth, outputs], members)
        self.register_buffer("start", torch.tensor(float(start)))
        self.register_buffer("unit", torch.tensor(max(1.0, abs(start) / 2)))
        with torch.no_grad():
            for last in (self.weight[-1], self.bias[-1]):
                last.div_(self.unit)

    def forward(self, x_RI: Tensor) -> Tensor:
        return self.outputs(x_RI).mean(-1)

    def outputs(self, x_RI: Tensor) -> Tensor:
        """(E, R, outputs) numbers whose mean is the value, such as quantiles of the return."""
        h_ERW = self.hidden(x_RI)
        with torch.autocast(x_RI.device.type, enabled=False):
            return self.start + self.unit * self.last(h_ERW.float())
