"""Keep-out regions: a ball, and blocks such as the walls of a maze.

What they leave free is not convex. A projection therefore puts each timestep into one of several convex regions: a
half-space that touches the ball, or one of the largest free boxes among the blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..trajectory import TrajectorySpec
from .kinds import Constraint, RegionQuery, check_bound, check_dims, check_values, clamp, double, freeze

MAX_NUMBERS = 1 << 22  # that a computation holds at a time, which bounds its memory
MAX_REGIONS = 4096  # a choice among more free boxes than this would take too long
IMPOSSIBLE_COST = 1e12  # the cost of a region that does not contain a known timestep


@dataclass(frozen=True)
class Circle(Constraint):
    """Keeps x_h[dims] out of the ball |x_h[dims] - centre| < radius, in any number of dimensions.

    The violation is the depth inside the ball.
    """

    centre: tuple[float, ...]
    radius: float
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        check_values(self, "centre", self.dims)
        check_bound(self, "radius")
        freeze(self, "centre", "dims")

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        return self.radius - (vectors - double(self.centre, vectors)).norm(dim=-1)

    def region(self, query: RegionQuery) -> Tensor:
        """(R, H, d) the outward normal of the half-space chosen for each timestep, which touches the ball: the
        direction of the timestep from the centre, or one of `directions`."""
        out_RHd = query.x_RHd - double(self.centre, query.x_RHd)
        around_Kd = torch.from_numpy(directions(len(self.dims))).to(out_RHd.device)
        nearest_RHd = torch.where(out_RHd.any(-1, keepdim=True), out_RHd, around_Kd[0])
        nearest_RHd = nearest_RHd / nearest_RHd.norm(dim=-1, keepdim=True)
        normal_RHKd = torch.cat([nearest_RHd[..., None, :], around_Kd.expand(*out_RHd.shape[:2], -1, -1)], 2)
        missing_RHK1 = (self.radius - (normal_RHKd * out_RHd[..., None, :]).sum(-1, keepdim=True)).clamp(min=0)
        chosen_RH = choose(query, query.x_RHd[..., None, :] + missing_RHK1 * normal_RHKd)
        return normal_RHKd.take_along_dim(chosen_RH[..., None, None], 2)[:, :, 0]

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        outwards = ((vectors - double(self.centre, vectors)) * region).sum(-1, keepdim=True)
        return vectors + (self.radius + slack - outwards).clamp(min=0) * region


@dataclass(frozen=True)
class Blocks(Constraint):
    """Keeps x_h[dims] out of the axis-aligned blocks low < x_h[dims] < high, each grown by `margin` on every side.

    `low` and `high` are (d,) for one block or (W, d) for many. An infinite bound leaves its side open, so a block may
    be everything beyond a border. The violation is the distance to the nearest side of the block that a timestep is
    deepest in. Only the timesteps are kept out, not the path from one to the next: bound the speed, or give thin walls
    a margin, so that no trajectory can leap over a wall. Raises ValueError for bounds of other shapes, and where `low`
    is above `high`.
    """

    low: Any
    high: Any
    dims: tuple[int, ...]
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_dims(self, self.dims)
        check_bound(self, "margin")
        freeze(self, "dims")
        for name, bounds in (("low", self.low), ("high", self.high)):
            array = np.atleast_2d(np.asarray(bounds, np.float64))
            if array.ndim != 2 or array.shape[1] != len(self.dims) or np.isnan(array).any():
                raise ValueError(f"Blocks.{name} has shape {array.shape}; (W, {len(self.dims)}) numbers are expected, "
                                 "one row for each block")
            object.__setattr__(self, name, tuple(map(tuple, array.tolist())))  # hashable and unchanging
        if len(self.low) != len(self.high) or not (np.array(self.low) <= np.array(self.high)).all():
            raise ValueError("Blocks: low must be at most high, and both must have one row for each block")
        if not self.free.shape[1]:
            raise ValueError("Blocks leave no free space; give smaller blocks or a smaller margin")

    @property
    def grown(self) -> Tensor:
        """(2, W, d) the low and high bounds, grown by the margin, in float64."""
        return torch.from_numpy(np.stack([np.array(self.low) - self.margin, np.array(self.high) + self.margin]))

    @cached_property
    def free(self) -> Tensor:
        """(2, K, d) the low and high bounds of the largest free boxes, see `largest_free_boxes`."""
        return torch.from_numpy(np.stack(largest_free_boxes(*self.grown.numpy())))

    def excess(self, vectors: Tensor, spec: TrajectorySpec) -> Tensor:
        depth = torch.full(vectors.shape[:-1], -math.inf, dtype=vectors.dtype, device=vectors.device)
        for low, high in self.grown.to(vectors.device).unbind(1):
            depth = torch.maximum(depth, torch.minimum(vectors - low, high - vectors).amin(-1))
        return depth

    def region(self, query: RegionQuery) -> Tensor:
        """(R, H, 2, d) the low and high bounds of the free box chosen for each timestep."""
        low_Kd, high_Kd = self.free.to(query.x_RHd.device)
        apart_KK = torch.maximum(low_Kd[:, None] - high_Kd, low_Kd - high_Kd[:, None]).clamp(min=0).norm(dim=-1)
        chosen_RH = choose(query, query.x_RHd[..., None, :].clamp(low_Kd, high_Kd), apart_KK)
        return torch.stack([low_Kd, high_Kd], 1)[chosen_RH]

    def nearest(self, vectors: Tensor, spec: TrajectorySpec, region: Tensor, slack: Tensor) -> Tensor:
        return clamp(vectors, region[:, :, 0], region[:, :, 1], slack)


def largest_free_boxes(low_Wd: np.ndarray, high_Wd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bounds low_Kd and high_Kd of all maximal boxes whose interior no block enters; the boxes overlap.

    Starting from the whole space, each block in turn splits every box that it enters into the parts beside the block.
    Raises ValueError for more than 4096 boxes.
    """
    d = low_Wd.shape[1]
    free_K2d = np.array([[np.full(d, -np.inf), np.full(d, np.inf)]])
    for low, high in zip(low_Wd, high_Wd, strict=True):
        entered = ((free_K2d[:, 0] < high) & (low < free_K2d[:, 1])).all(1)
        parts = [free_K2d[~entered]]
        for i in range(d):
            below, above = free_K2d[entered].copy(), free_K2d[entered].copy()
            below[:, 1, i], above[:, 0, i] = np.minimum(below[:, 1, i], low[i]), np.maximum(above[:, 0, i], high[i])
            parts += [below[(below[:, 0] < below[:, 1]).all(1)], above[(above[:, 0] < above[:, 1]).all(1)]]
        free_K2d = _largest(np.concatenate(parts))
        if len(free_K2d) > MAX_REGIONS:
            raise ValueError(f"Blocks cut the free space into more than {MAX_REGIONS} boxes; give fewer blocks")
    return free_K2d[:, 0], free_K2d[:, 1]


def _largest(boxes_K2d: np.ndarray) -> np.ndarray:
    """The boxes that no other box contains."""
    boxes_K2d = np.unique(boxes_K2d, axis=0)
    low, high = boxes_K2d[:, 0], boxes_K2d[:, 1]
    contained = ((low[:, None] >= low) & (high[:, None] <= high)).all(-1)
    return boxes_K2d[contained.sum(1) == 1]  # each box contains itself


def directions(d: int) -> np.ndarray:
    """(K, d) unit vectors in all directions: along the axes, and halfway between each two axes."""
    axes = np.concatenate([np.eye(d), -np.eye(d)])
    between = [(s * np.eye(d)[i] + t * np.eye(d)[j]) / math.sqrt(2)
               for i, j in combinations(range(d), 2) for s, t in product((1, -1), repeat=2)]
    return np.array([*axes, *between])


def choose(query: RegionQuery, at_RHKd: Tensor, apart_KK: Tensor | float = 0.0) -> Tensor:
    """(R, H) the region chosen for each timestep, given the nearest point `at_RHKd` of each of the K regions.

    The choice minimises the sum of the squared distances to the regions, plus `query.weight` times the squared
    distances by which neighbouring timesteps exceed `query.reach`, by dynamic programming (Viterbi 1967). Neighbouring
    timesteps are never put into regions whose distance `apart_KK` exceeds `query.reach`.
    """
    at_a_time = max(1, MAX_NUMBERS // at_RHKd.shape[2] ** 2)
    if len(at_RHKd) > at_a_time:
        parts = zip(*(x.split(at_a_time) for x in (query.x_RHd, query.known_RHd, at_RHKd)), strict=True)
        return torch.cat([choose(replace(query, x_RHd=x, known_RHd=known), at, apart_KK) for x, known, at in parts])
    away_RHKd = at_RHKd - query.x_RHd[..., None, :]
    impossible_RHK = ((away_RHKd != 0) & query.known_RHd[..., None, :]).any(-1)
    cost_RHK = away_RHKd.square().sum(-1).masked_fill(impossible_RHK, IMPOSSIBLE_COST)
    if math.isinf(query.reach):
        return cost_RHK.argmin(-1)
    unreachable_KK = IMPOSSIBLE_COST * (torch.as_tensor(apart_KK, device=cost_RHK.device) > query.reach)
    best_RK, sources = cost_RHK[:, 0], []  # the least cost of the timesteps so far, if the last is in region k
    for h in range(1, cost_RHK.shape[1]):
        beyond_RKK = (torch.cdist(at_RHKd[:, h - 1], at_RHKd[:, h]) - query.reach).clamp(min=0)
        best_RK, source_RK = (best_RK[:, :, None] + query.weight * beyond_RKK.square() + unreachable_KK).min(1)
        best_RK = best_RK + cost_RHK[:, h]
        sources.append(source_RK)
    region = [best_RK.argmin(1)]
    for source_RK in reversed(sources):
        region.append(source_RK.gather(1, region[-1][:, None])[:, 0])
    return torch.stack(region[::-1], 1)
