"""Which entries are known in training: the mix of conditions that a model is trained for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config import require, require_choice
from ..trajectory import TrajectorySpec

LAST = 1 - 2**-20  # the fraction u that `later_row` maps to the last timestep


@dataclass(frozen=True)
class ConditionMix:
    """The probability that each kind of entry is known, for each trajectory and each kind on its own."""

    start: float = 1.0
    """Probability that the first observation is known."""
    goal: float = 0.85
    """Probability that the goal's entries are known at one timestep."""
    goal_at: Literal["any", "end"] = "any"
    """Timestep of the goal: uniform over the real timesteps after the first, or always the last real one."""
    waypoint: float = 0.0
    """Probability that the goal's entries are known at another timestep, uniform over the real ones after the first."""
    prefix: float = 0.0
    """Probability that all entries up to a random time are known; an action comes half a timestep after its state."""
    actions: float = 0.0
    """Probability that all actions are known; with a known start the model is then a world model."""
    observations: float = 0.0
    """Probability that all observations are known; the model is then inverse dynamics."""
    goal_dims: tuple[int, ...] = ()
    """Indices of the observation's entries that make up a goal; empty for all."""

    def __post_init__(self) -> None:
        require_choice(self, goal_at=("any", "end"))
        require(self, **dict.fromkeys(KINDS, (0, 1)))

    def sample(self, spec: TrajectorySpec, real_BHD: Tensor, generator: torch.Generator) -> Tensor:
        """Samples which of the real entries (B, H, D) are known: bool (B, H, D). `generator` is on the CPU."""
        length_B = real_BHD[..., 0].sum(1).cpu()
        known = torch.zeros(real_BHD.shape, dtype=torch.bool)
        probability = vars(self)
        for kind, mask in KINDS.items():
            chosen_B = torch.rand(len(length_B), generator=generator) < probability[kind]
            u_B = torch.rand(len(length_B), generator=generator)
            if not chosen_B.any():
                continue
            if kind == "goal" and self.goal_at == "end":
                u_B = torch.full_like(u_B, LAST)
            known |= mask(spec, self.goal_dims, length_B, u_B) & chosen_B[:, None, None]
        return known.to(real_BHD.device) & real_BHD


def later_row(length_B: Tensor, u_B: Tensor) -> Tensor:
    """Timesteps (B,) uniform over 1 .. length - 1 for u uniform in [0, 1); 1 where the length is 1."""
    return 1 + (u_B * (length_B - 1)).long()


def _entries(spec: TrajectorySpec, timesteps_BH: Tensor, dims: tuple[int, ...] | range) -> Tensor:
    column_D = torch.zeros(spec.dim, dtype=torch.bool)
    column_D[list(dims)] = True
    return timesteps_BH[..., None] & column_D


def _start(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    timesteps_BH = (torch.arange(spec.horizon) == 0).expand(len(length_B), -1)
    return _entries(spec, timesteps_BH, range(spec.obs_dim))


def _goal(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    timesteps_BH = torch.arange(spec.horizon) == later_row(length_B, u_B)[:, None]
    return _entries(spec, timesteps_BH, dims or range(spec.obs_dim))


def _prefix(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    after_D = torch.zeros(spec.dim)
    after_D[spec.obs_dim :] = 0.5
    return torch.arange(spec.horizon)[:, None] + after_D < (u_B * length_B)[:, None, None]


def _actions(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim) >= spec.obs_dim


def _observations(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim) < spec.obs_dim


KINDS = {"start": _start, "goal": _goal, "waypoint": _goal, "prefix": _prefix, "actions": _actions,
         "observations": _observations}
