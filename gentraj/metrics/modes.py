"""Which modes a set of trajectories has, where the modes are known."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .sets import blocks, checked


def nearest_mode(x_RF: Tensor, centres_KF: Tensor, radius: float = math.inf) -> Tensor:
    """(R,) the index of the nearest centre, -1 where none is within `radius`, in units of the features."""
    x, centres = checked(1, x=x_RF, centres=centres_KF)
    nearest = [d.min(1) for _, d in blocks(x, centres)]
    return torch.cat([near.indices.masked_fill(near.values > radius, -1) for near in nearest])


def mode_shares(mode_R: Tensor, num: int) -> Tensor:
    """(num,) float64 share of the trajectories that is of each mode 0, 1, ..; what is -1 is of none.

    Raises ValueError for an empty tensor, other integers and other numbers.
    """
    if mode_R.is_floating_point() or not mode_R.numel() or not ((mode_R >= -1) & (mode_R < num)).all():
        raise ValueError(f"modes of type {mode_R.dtype} and shape {tuple(mode_R.shape)} were given; at least one "
                         f"integer is expected, each from -1 (none) to {num - 1}")
    return torch.bincount(mode_R.flatten() + 1, minlength=num + 1)[1:].double() / mode_R.numel()


class ModeCoverage(NamedTuple):
    found: int
    """Modes that have any share."""
    close: int
    """Modes whose share is the true one within the tolerance."""
    total_variation: float
    """Half the sum of differences of shares, what is of no mode included; 0 is equal, 1 disjoint."""


def modes_covered(share_K: Tensor, true_K: Tensor | None = None, tolerance: float = 0.3) -> ModeCoverage:
    """How shares (K,) of modes agree with the true ones, equal by default; `tolerance` is in parts of the true share.

    Raises ValueError unless both are at least 0, the true ones sum to 1 and the others to at most 1.
    """
    share = share_K.double()
    true = torch.full_like(share, 1 / len(share)) if true_K is None else true_K.to(share)
    if (share.shape != true.shape or not ((share >= 0) & (true >= 0)).all() or share.sum() > 1 + 1e-5
            or abs(true.sum() - 1) > 1e-5):
        raise ValueError(f"shares {share.tolist()} and true shares {true.tolist()} were given; as many are expected, "
                         "none negative, the true ones summing to 1 and the others to at most 1")
    difference = (share - true).abs()
    return ModeCoverage(found=int(((share > 0) & (true > 0)).sum()), close=int((difference <= tolerance * true).sum()),
                        total_variation=float(difference.sum() + (1 - share.sum()).clamp(min=0)) / 2)
