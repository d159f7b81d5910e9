"""Where a trajectory would go if it went straight from each known entry to the next."""

from __future__ import annotations

import torch
from torch import Tensor


def bridge(values_RHD: Tensor, known_RHD: Tensor) -> Tensor:
    """(R, H, D): each column linear between two known entries, constant outside of them, 0 where none is known."""
    rows_H1 = torch.arange(values_RHD.shape[1], device=values_RHD.device)[:, None]
    last, beyond = len(rows_H1) - 1, len(rows_H1)
    before = _running_max(torch.where(known_RHD, rows_H1, -1))
    after = -_running_max(torch.where(known_RHD, -rows_H1, -beyond).flip(1)).flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after == beyond, before, after)
    low, high = (values_RHD.gather(1, index.clamp(0, last)) for index in (before, after))
    share = (rows_H1 - before) / (after - before).clamp(min=1)
    return torch.where(known_RHD.any(1, keepdim=True), torch.lerp(low, high, share.to(low.dtype)), 0)


def _running_max(x_RHD: Tensor) -> Tensor:
    """The largest so far along the rows, each round over twice as many: ONNX has no cumulative maximum."""
    step = 1
    while step < x_RHD.shape[1]:
        x_RHD = torch.cat([x_RHD[:, :step], torch.maximum(x_RHD[:, step:], x_RHD[:, :-step])], 1)
        step *= 2
    return x_RHD
