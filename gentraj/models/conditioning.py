"""Which entries are known while training: the mix of conditions a model will be used with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config import require, require_choice
from ..trajectory import TrajectorySpec

LAST = 1 - 2**-20  # a share of the rows that leaves none behind


@dataclass(frozen=True)
class ConditionMix:
    """The probability that each kind of entry is known; every trajectory draws every kind for itself."""

    start: float = 1.0
    """The first observation."""
    goal: float = 0.85
    """The goal's entries at one row."""
    goal_at: Literal["any", "end"] = "any"
    """Uniform over the real rows after the first, or always the last real one."""
    waypoint: float = 0.0
    """The goal's entries at another row, uniform over the real rows after the first."""
    prefix: float = 0.0
    """All up to a moment, uniform over the real rows; the action of a row comes half a row after its observation."""
    actions: float = 0.0
    """All actions: with the start known, a world model."""
    observations: float = 0.0
    """All observations: inverse dynamics."""
    goal_dims: tuple[int, ...] = ()
    """Entries of the observation that a goal speaks about; none means all."""

    def __post_init__(self) -> None:
        require_choice(self, goal_at=("any", "end"))
        require(self, **dict.fromkeys(KINDS, (0, 1)))

    def sample(self, spec: TrajectorySpec, real_BHD: Tensor, generator: torch.Generator) -> Tensor:
        """Real entries (B, H, D) -> known entries (B, H, D), both bool. The generator is a CPU one."""
        rows_B = real_BHD[..., 0].sum(1).cpu()
        known = torch.zeros(real_BHD.shape, dtype=torch.bool)
        for kind, mask in KINDS.items():
            chosen_B = torch.rand(len(rows_B), generator=generator) < getattr(self, kind)
            u_B = torch.rand(len(rows_B), generator=generator)
            if not chosen_B.any():
                continue
            if kind == "goal" and self.goal_at == "end":
                u_B = torch.full_like(u_B, LAST)
            known |= mask(spec, self.goal_dims, rows_B, u_B) & chosen_B[:, None, None]
        return known.to(real_BHD.device) & real_BHD


def later_row(rows_B: Tensor, u_B: Tensor) -> Tensor:
    """(B,) a real row after the first, uniform over 1 .. rows - 1 for u uniform in [0, 1); 1 where there is none."""
    return 1 + (u_B * (rows_B - 1)).long()


def _entries(spec: TrajectorySpec, rows_BH: Tensor, dims: tuple[int, ...] | range) -> Tensor:
    column_D = torch.zeros(spec.dim, dtype=torch.bool)
    column_D[list(dims)] = True
    return rows_BH[..., None] & column_D


def _start(spec: TrajectorySpec, dims: tuple[int, ...], rows_B: Tensor, u_B: Tensor) -> Tensor:
    rows_BH = (torch.arange(spec.horizon) == 0).expand(len(rows_B), -1)
    return _entries(spec, rows_BH, range(spec.obs_dim))


def _goal(spec: TrajectorySpec, dims: tuple[int, ...], rows_B: Tensor, u_B: Tensor) -> Tensor:
    rows_BH = torch.arange(spec.horizon) == later_row(rows_B, u_B)[:, None]
    return _entries(spec, rows_BH, dims or range(spec.obs_dim))


def _prefix(spec: TrajectorySpec, dims: tuple[int, ...], rows_B: Tensor, u_B: Tensor) -> Tensor:
    after_D = torch.zeros(spec.dim)
    after_D[spec.obs_dim :] = 0.5
    return torch.arange(spec.horizon)[:, None] + after_D < (u_B * rows_B)[:, None, None]


def _actions(spec: TrajectorySpec, dims: tuple[int, ...], rows_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim) >= spec.obs_dim


def _observations(spec: TrajectorySpec, dims: tuple[int, ...], rows_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim) < spec.obs_dim


KINDS = {"start": _start, "goal": _goal, "waypoint": _goal, "prefix": _prefix, "actions": _actions,
         "observations": _observations}
