"""A free space that is not convex as convex regions: the largest free boxes, and which region each row is put into."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor

from .kinds import Place

NUMBERS = 1 << 22  # in the systems that are solved at a time, which bounds the memory
MAX_REGIONS = 4096  # more free boxes than this are too many to choose among
IMPOSSIBLE = 1e12  # the cost of a region that a known row is not in


def largest_free_boxes(low_Wd: np.ndarray, high_Wd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """low_Kd, high_Kd of all largest boxes whose inside no block enters; they overlap.

    Block by block, each box that one enters is cut to the parts on its sides. Raises ValueError for more than 4096.
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
    """Without those that another one contains."""
    boxes_K2d = np.unique(boxes_K2d, axis=0)
    low, high = boxes_K2d[:, 0], boxes_K2d[:, 1]
    contained = ((low[:, None] >= low) & (high[:, None] <= high)).all(-1)
    return boxes_K2d[contained.sum(1) == 1]  # each contains itself


def directions(d: int) -> np.ndarray:
    """(K, d) unit vectors all around: along the axes, and between each two of them."""
    axes = np.concatenate([np.eye(d), -np.eye(d)])
    between = [(s * np.eye(d)[i] + t * np.eye(d)[j]) / math.sqrt(2)
               for i, j in combinations(range(d), 2) for s, t in product((1, -1), repeat=2)]
    return np.array([*axes, *between])


def choose(place: Place, at_RHKd: Tensor, apart_KK: Tensor | float = 0.0) -> Tensor:
    """(R, H) the region of each row, given its nearest point in each one: by least squared distances to the regions,
    plus `place.weight` times the squares of what neighbours exceed `place.reach` by (the algorithm of Viterbi 1967).

    Neighbours are never in regions that are further `apart_KK` than they reach.
    """
    at_a_time = max(1, NUMBERS // at_RHKd.shape[2] ** 2)
    if len(at_RHKd) > at_a_time:
        parts = zip(*(x.split(at_a_time) for x in (place.x_RHd, place.known_RHd, at_RHKd)), strict=True)
        return torch.cat([choose(replace(place, x_RHd=x, known_RHd=known), at, apart_KK) for x, known, at in parts])
    away_RHKd = at_RHKd - place.x_RHd[..., None, :]
    impossible_RHK = ((away_RHKd != 0) & place.known_RHd[..., None, :]).any(-1)
    cost_RHK = away_RHKd.square().sum(-1).masked_fill(impossible_RHK, IMPOSSIBLE)
    if math.isinf(place.reach):
        return cost_RHK.argmin(-1)
    unreachable_KK = IMPOSSIBLE * (torch.as_tensor(apart_KK, device=cost_RHK.device) > place.reach)
    best_RK, sources = cost_RHK[:, 0], []  # the least cost of the rows so far that ends in region k
    for h in range(1, cost_RHK.shape[1]):
        beyond_RKK = (torch.cdist(at_RHKd[:, h - 1], at_RHKd[:, h]) - place.reach).clamp(min=0)
        best_RK, source_RK = (best_RK[:, :, None] + place.weight * beyond_RKK.square() + unreachable_KK).min(1)
        best_RK = best_RK + cost_RHK[:, h]
        sources.append(source_RK)
    region = [best_RK.argmin(1)]
    for source_RK in reversed(sources):
        region.append(source_RK.gather(1, region[-1][:, None])[:, 0])
    return torch.stack(region[::-1], 1)
