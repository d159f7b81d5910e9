"""Keep-out regions of the rows: a ball, and blocks such as the walls of a maze."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..trajectory import TrajectorySpec
from .checks import check_bound, check_dims, check_values, double
from .kinds import Constraint, Nearest, Place, clamp
from .regions import choose, directions, largest_free_boxes


@dataclass(frozen=True)
class Circle(Constraint):
    """Keep x_h[dims] out of the ball |. - centre| < radius; any number of entries. Violation: the depth inside it."""

    centre: tuple[float, ...]
    radius: float
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        check_values(self, "centre", self.dims)
        check_bound(self, "radius")

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return self.radius - (vectors - double(self.centre, vectors)).norm(dim=-1)

    def region(self, place: Place) -> Tensor:
        """(R, H, d) the outward normal of the half-space that touches the ball: where a row is, or another way out."""
        out_RHd = place.x_RHd - double(self.centre, place.x_RHd)
        around_Kd = torch.from_numpy(directions(len(self.dims))).to(out_RHd.device)
        nearest_RHd = torch.where(out_RHd.any(-1, keepdim=True), out_RHd, around_Kd[0])
        nearest_RHd = nearest_RHd / nearest_RHd.norm(dim=-1, keepdim=True)
        normal_RHKd = torch.cat([nearest_RHd[..., None, :], around_Kd.expand(*out_RHd.shape[:2], -1, -1)], 2)
        missing_RHK1 = (self.radius - (normal_RHKd * out_RHd[..., None, :]).sum(-1, keepdim=True)).clamp(min=0)
        chosen_RH = choose(place, place.x_RHd[..., None, :] + missing_RHK1 * normal_RHKd)
        return normal_RHKd.take_along_dim(chosen_RH[..., None, None], 2)[:, :, 0]

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        def nearest(x: Tensor, normal: Tensor, slack: Tensor) -> Tensor:
            depth = self.radius + slack - ((x - double(self.centre, x)) * normal).sum(-1, keepdim=True)
            return torch.where(depth > 0, x + depth * normal, x)

        return nearest


@dataclass(frozen=True)
class Blocks(Constraint):
    """Keep x_h[dims] out of the axis-aligned blocks low < . < high, each grown by `margin` on every side.

    `low` and `high` are (d,) for one block or (W, d) for many; an infinity leaves a side open, so a block may be all
    that lies beyond a border. The violation is the way out of the block that a row is deepest in. Rows are kept out,
    not the way from one to the next: bound the speed, or grow thin walls, so that no row can leap over one.
    """

    low: Any
    high: Any
    dims: tuple[int, ...]
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_dims(self, self.dims)
        check_bound(self, "margin")
        for name in ("low", "high"):
            array = np.atleast_2d(np.asarray(getattr(self, name), np.float64))
            if array.ndim != 2 or array.shape[1] != len(self.dims) or np.isnan(array).any():
                raise ValueError(f"Blocks.{name} has shape {array.shape}; (W, {len(self.dims)}) numbers are expected, "
                                 "one row for each block")
            object.__setattr__(self, name, tuple(map(tuple, array.tolist())))  # hashable and unchanging
        if len(self.low) != len(self.high) or not (np.array(self.low) <= np.array(self.high)).all():
            raise ValueError("Blocks: low must be at most high, for as many blocks")
        if not len(self.free[0]):
            raise ValueError("Blocks leave no free place; give smaller blocks or a smaller margin")

    @property
    def grown(self) -> tuple[np.ndarray, np.ndarray]:
        """low_Wd and high_Wd with the margin."""
        return np.array(self.low) - self.margin, np.array(self.high) + self.margin

    @cached_property
    def free(self) -> tuple[np.ndarray, np.ndarray]:
        """low_Kd and high_Kd of the largest free boxes, which overlap."""
        return largest_free_boxes(*self.grown)

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        deepest = torch.full(vectors.shape[:-1], -math.inf, dtype=vectors.dtype, device=vectors.device)
        for low, high in zip(*_tensors(self.grown, vectors), strict=True):
            deepest = torch.maximum(deepest, torch.minimum(vectors - low, high - vectors).amin(-1))
        return deepest

    def region(self, place: Place) -> Tensor:
        """(R, H, 2, d) the free box that each row is put into."""
        low_Kd, high_Kd = _tensors(self.free, place.x_RHd)
        apart_KK = torch.maximum(low_Kd[:, None] - high_Kd, low_Kd - high_Kd[:, None]).clamp(min=0).norm(dim=-1)
        chosen_RH = choose(place, place.x_RHd[..., None, :].clamp(low_Kd, high_Kd), apart_KK)
        return torch.stack([low_Kd, high_Kd], 1)[chosen_RH]

    def nearest(self, spec: TrajectorySpec) -> Nearest:
        return lambda x, region, slack: clamp(x, region[:, :, 0], region[:, :, 1], slack)


def _tensors(boxes: tuple[np.ndarray, np.ndarray], like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(boxes[0]).to(like.device), torch.from_numpy(boxes[1]).to(like.device)
