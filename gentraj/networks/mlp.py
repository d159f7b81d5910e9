"""Multilayer perceptrons: a single one, an ensemble whose members are computed at once, and one of value functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import OneOf

# ReLU overwrites its input, which nothing else needs: a layer's sum.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_, "silu": F.silu, "mish": F.mish, "gelu": partial(F.gelu, approximate="tanh")}


def _uniform(weight_IO: Tensor, bias: Tensor) -> None:
    for tensor in (weight_IO, bias):
        tensor.uniform_(-1 / math.sqrt(len(weight_IO)), 1 / math.sqrt(len(weight_IO)))


def _orthogonal(weight_IO: Tensor, bias: Tensor) -> None:
    nn.init.orthogonal_(weight_IO, math.sqrt(2))
    bias.zero_()


def _glorot(weight_IO: Tensor, bias: Tensor) -> None:
    nn.init.xavier_uniform_(weight_IO)
    bias.zero_()


# Each draws the initial weights (inputs, outputs) and biases of a layer, in place.
INITIAL: dict[str, Callable[[Tensor, Tensor], None]] = {"uniform": _uniform, "orthogonal": _orthogonal,
                                                        "glorot": _glorot}
ActivationName = Annotated[str, OneOf(ACTIVATIONS)]
InitialName = Annotated[str, OneOf(INITIAL)]
NormName = Literal["before", "after", "none"]


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them, none after the last."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class EnsembleMLP(nn.Module):
    """An ensemble of `members` perceptrons: (R, inputs) -> (E, R, outputs).

    Each hidden layer is normalised before its activation, or after it with a scale and a shift that are learned, or not
    at all. It computes in float32 under autocast, too, since bfloat16 resolves values near 100 to 0.5 only.
    """

    def __init__(self, widths: Sequence[int], members: int, activation: Callable[[Tensor], Tensor] = F.relu_, *,
                 norm: NormName = "before", initial: InitialName = "uniform"):
        super().__init__()
        self.activation, self.norm = activation, norm
        sizes = list(pairwise(widths))
        self.weight = nn.ParameterList(torch.empty(members, i, o) for i, o in sizes)
        self.bias = nn.ParameterList(torch.empty(members, 1, o) for _, o in sizes)
        draw_layers(self, initial)
        if norm == "after":
            self.scale = nn.ParameterList(torch.ones(members, 1, o) for _, o in sizes[:-1])
            self.shift = nn.ParameterList(torch.zeros(members, 1, o) for _, o in sizes[:-1])

    def forward(self, x_RI: Tensor) -> Tensor:
        with torch.autocast(x_RI.device.type, enabled=False):
            return self.layers(x_RI.to(self.weight[0].dtype))

    def layers(self, x_RI: Tensor, members_M: Tensor | None = None) -> Tensor:
        """(E, R, outputs) of the layers; under autocast the last one is computed in float32 all the same.

        Inputs (E, R, I) are other ones for each member. With `members_M`, only these members are computed.
        """
        *hidden, (weight, bias) = zip(self._of(self.weight, members_M), self._of(self.bias, members_M), strict=True)
        h = x_RI.expand(len(weight), *x_RI.shape[-2:])
        for i, (weight_EIO, bias_E1O) in enumerate(hidden):
            h, width = torch.baddbmm(bias_E1O, h, weight_EIO), weight_EIO.shape[-1:]
            if self.norm == "before":
                h = F.layer_norm(h, width)
            h = self.activation(h)
            if self.norm == "after":
                shift, scale = self._of([self.shift[i], self.scale[i]], members_M)
                h = torch.addcmul(shift, F.layer_norm(h, width), scale)
        h = h.to(weight.dtype)
        if weight.shape[-1] == 1:  # a product with one column is several times as slow as this sum
            return (h * weight.mT).sum(-1, keepdim=True) + bias
        with torch.autocast(h.device.type, enabled=False):
            return torch.baddbmm(bias, h, weight)

    @staticmethod
    def _of(parameters: Iterable[Tensor], members_M: Tensor | None) -> list[Tensor]:
        """The parameters of some members, or of all."""
        if members_M is None:
            return list(parameters)
        return [parameter.index_select(0, members_M) for parameter in parameters]


class ValueEnsemble(EnsembleMLP):
    """An ensemble of value functions, (R, inputs) -> (E, R).

    Without layer normalisation the values of actions that are not in the data would grow without bound (Ball et al.
    2023, section 4.2). The values are start + unit * output of the last layer: they begin near `start`, and an
    optimiser step changes large and small values by about the same fraction. Under autocast the hidden layers are
    computed in bfloat16, and the values in float32.
    """

    start: Tensor
    unit: Tensor

    def __init__(self, widths: Sequence[int], members: int, start: float = 0.0,
                 activation: Callable[[Tensor], Tensor] = F.relu_, *, norm: NormName = "before",
                 initial: InitialName = "uniform"):
        super().__init__(widths, members, activation, norm=norm, initial=initial)
        self.register_buffer("start", torch.tensor(float(start)))
        self.register_buffer("unit", torch.tensor(max(1.0, abs(start) / 2)))
        with torch.no_grad():
            for last in (self.weight[-1], self.bias[-1]):
                last.div_(self.unit)

    def forward(self, x_RI: Tensor, members_M: Tensor | None = None) -> Tensor:
        """The values (E, R) of inputs (R, F), or (M, R) those of some members of the ensemble."""
        return self.start + self.unit * self.layers(x_RI, members_M)[..., 0]


@torch.no_grad()
def draw_layers(ensemble: EnsembleMLP, initial: InitialName) -> None:
    """Draws the initial weights of all members. Uniform ones are drawn for all weights first, as earlier releases did,
    so that a seed gives the same."""
    if initial == "uniform":
        bounds = [1 / math.sqrt(weight_EIO.shape[1]) for weight_EIO in ensemble.weight]
        for tensors in (ensemble.weight, ensemble.bias):
            for tensor, bound in zip(tensors, bounds, strict=True):
                tensor.uniform_(-bound, bound)
        return
    for weight_EIO, bias_E1O in zip(ensemble.weight, ensemble.bias, strict=True):
        for weight_IO, bias_1O in zip(weight_EIO, bias_E1O, strict=True):
            INITIAL[initial](weight_IO, bias_1O)
