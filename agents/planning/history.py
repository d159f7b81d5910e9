"""What a planner remembers: the rows that led to the present, which its model is told too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gentraj.trajectory import Condition, TrajectorySpec

from .execution import moved


@dataclass(frozen=True)
class Past:
    """Rows that led to the present, the oldest first: of each plan `now_B` are real, and the present is row `now_B`."""

    x_BKD: Tensor
    now_B: Tensor

    @classmethod
    def none(cls, spec: TrajectorySpec, batch: int, device: torch.device) -> Past:
        return cls(torch.zeros(batch, 0, spec.dim, device=device), torch.zeros(batch, dtype=torch.long, device=device))

    def known(self, spec: TrajectorySpec, obs_BO: Tensor) -> Condition:
        """Plans of which the past is known, and the present observation after it (Ajay et al. 2023, algorithm 1)."""
        known = Condition.unknown(spec, len(obs_BO), device=obs_BO.device).with_prefix(self.x_BKD)
        past_BH1 = (torch.arange(spec.horizon, device=obs_BO.device) < self.now_B[:, None])[..., None]
        return replace(known, mask_BHD=known.mask_BHD & past_BH1).with_obs(self.now_B, obs_BO)


class History:
    """The last steps of each environment, observation and action, as far back as `rows` rows of a plan reach."""

    def __init__(self, spec: TrajectorySpec, rows: int, batch: int, device: torch.device):
        self.spec, self.rows = spec, rows
        self.x_BTD = torch.zeros(batch, rows * spec.stride, spec.dim, device=device)  # the newest is the last
        self.steps_B = torch.zeros(batch, dtype=torch.long, device=device)

    def forget(self, mask_B: Tensor) -> None:
        self.steps_B[mask_B] = 0

    def add(self, obs_BO: Tensor, act_BA: Tensor) -> None:
        """What was observed, and done then, in every environment."""
        x_B1D = self.spec.join(obs_BO, act_BA[:, : self.spec.act_dim])[:, None].to(self.x_BTD)
        self.x_BTD = torch.cat([self.x_BTD, x_B1D], 1)[:, 1:]
        self.steps_B += 1

    def of(self, which_B: Tensor) -> Past:
        """The rows before the present one: as many as the episode has, up to `rows`."""
        now_B = (self.steps_B[which_B] // self.spec.stride).clamp(max=self.rows)
        return Past(moved(self.x_BTD[which_B, :: self.spec.stride], self.rows - now_B), now_B)
