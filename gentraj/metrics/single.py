"""Metrics of single trajectories: how well they keep a condition, how smooth they are, which constraints they
violate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..trajectory import Condition, TrajectorySpec

if TYPE_CHECKING:
    from ..constraints import Constraints


def condition_error(x_BNHD: Tensor, condition: Condition) -> Tensor:
    """(B, N) the largest absolute error at a known entry, in that entry's units; 0 where no entry is known.

    Raises ValueError where the samples and the condition differ in shape.
    """
    values, known = condition.values_BHD[:, None], condition.mask_BHD[:, None]
    if x_BNHD.ndim != 4 or (x_BNHD.shape[0], *x_BNHD.shape[2:]) != condition.values_BHD.shape:
        batch, *window = condition.values_BHD.shape
        raise ValueError(f"samples of shape {tuple(x_BNHD.shape)} were given; ({batch}, N, {window[0]}, {window[1]}) "
                         "is expected, as the condition says")
    return (x_BNHD - values.to(x_BNHD)).abs().masked_fill(~known.to(x_BNHD.device), 0).flatten(2).amax(-1)


def smoothness(x_RHD: Tensor, spec: TrajectorySpec, dims: Sequence[int] | None = None) -> Tensor:
    """(R,) the root mean square, over timesteps and entries, of the second difference in time; larger is rougher.

    For evenly spaced timesteps the second difference is (x_h+1 - 2 x_h + x_h-1) / stride^2, in units of the entries per
    squared environment step. It is 0 for uniform motion, and for positions it is the acceleration times dt^2, whatever
    the stride. `dims` selects entries, which should share a unit; by default all are used. Raises ValueError for fewer
    than 3 timesteps and for shapes other than (R, H, D).
    """
    if x_RHD.shape[1:] != (spec.horizon, spec.dim) or spec.horizon < 3:
        raise ValueError(f"trajectories of shape {tuple(x_RHD.shape)} were given; (R, {spec.horizon}, {spec.dim}) is "
                         "expected, with at least 3 timesteps")
    x_RHO = x_RHD[..., list(dims or range(spec.dim))]
    gap_H1 = torch.tensor(spec.gaps[:-1], device=x_RHD.device)[:, None]
    velocity_RHO = x_RHO.double().diff(dim=1) / gap_H1
    return (2 * velocity_RHO.diff(dim=1) / (gap_H1[1:] + gap_H1[:-1])).square().mean((1, 2)).sqrt()


class Violations(NamedTuple):
    """How often and by how much trajectories violate their constraints."""

    share: float
    """The fraction of trajectories that violate a constraint by more than the tolerance, 0 to 1."""
    worst: float
    """The largest violation, in the units of the violated constraint; 0 if there is none."""


def violations(x: Tensor, constraints: Constraints) -> Violations:
    """Summarises how trajectories (..., H, D), in environment units, violate `constraints`.

    Raises ValueError for other shapes, for no trajectories and for non-finite values, which satisfy no constraint.
    """
    if not x.numel() or not torch.isfinite(x).all():
        raise ValueError(f"trajectories of shape {tuple(x.shape)} were given, {int((~torch.isfinite(x)).sum())} of "
                         "their values NaN or infinite; at least one trajectory and finite values are expected")
    certificate = constraints.certificate(x)
    return Violations(float((~certificate.feasible).double().mean()), float(certificate.worst.max()))
