"""Perceptrons that value things, several side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from .members import Members


class Ensemble(Members):
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
