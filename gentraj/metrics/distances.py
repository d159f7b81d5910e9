"""Distances between sets of feature vectors, a block at a time: what the metrics of sets are made of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 22  # distances held at a time (32 MiB), or those of a single row where it is longer than that


def checked(least: int, **sets: Tensor) -> list[Tensor]:
    """The named feature matrices (R, F) in float64.

    Raises ValueError, naming the set, for other shapes, widths that differ, fewer rows than `least`, and non-finite
    values.
    """
    widths = {}
    for name, x in sets.items():
        if x.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; (rows, features) is expected")
        if len(x) < least:
            raise ValueError(f"{name} has {len(x)} rows; at least {least} are needed, give more trajectories")
        check_finite(name, x)
        widths[name] = x.shape[1]
    if len(set(widths.values())) > 1:
        raise ValueError("; ".join(f"{name} has {width} features" for name, width in widths.items())
                         + ": as many in each are expected")
    return [x.detach().double() for x in sets.values()]


def check_finite(name: str, x: Tensor) -> None:
    """Raises ValueError, naming the set, where a value is NaN or infinite."""
    if bad := int((~torch.isfinite(x)).sum()):
        raise ValueError(f"{name} holds {bad} values that are NaN or infinite; give finite trajectories")


def blocks(a_NF: Tensor, b_MF: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of `a` and their Euclidean distances (rows, M) to all of `b`, one part after the other.

    Differences are squared and summed, not multiplied out: a copy is at distance 0 exactly, and no distance depends
    on the block that it is in.
    """
    size = max(1, BLOCK // len(b_MF))
    for start in range(0, len(a_NF), size):
        rows = slice(start, start + size)
        yield rows, torch.cdist(a_NF[rows], b_MF, compute_mode="donot_use_mm_for_euclid_dist")


def kth_distance(a_NF: Tensor, b_MF: Tensor, k: int) -> Tensor:
    """(N,) distance of each row of `a` to the k-th nearest row of `b`; within one set the first is the row itself."""
    return torch.cat([d.topk(k, largest=False).values[:, -1] for _, d in blocks(a_NF, b_MF)])
