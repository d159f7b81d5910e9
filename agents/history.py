"""What a planner remembers: the rows that led to the present, which its model is told too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gentraj.trajectory import Condition, TrajectorySpec


@dataclass(frozen=True)
class Past:
    """Rows that led to the present, the oldest first; of each plan `row_B` are real, and then comes the present."""

    x_BKD: Tensor
    row_B: Tensor

    @classmethod
    def none(cls, spec: TrajectorySpec, batch: int, device: torch.device) -> Past:
        return cls(torch.zeros(batch, 0, spec.dim, device=device), torch.zeros(batch, dtype=torch.long, device=device))

    def known(self, spec: TrajectorySpec, obs_BO: Tensor) -> Condition:
        """Plans of which the past is known, and the present observation after it (Ajay et al. 2023, algorithm 1)."""
        now = Condition.unknown(spec, len(obs_BO), device=obs_BO.device).with_obs(self.row_B, obs_BO)
        past_BH1 = (torch.arange(spec.horizon, device=obs_BO.device) < self.row_B[:, None])[..., None]
        x_BHD = F.pad(self.x_BKD, (0, 0, 0, spec.horizon - self.x_BKD.shape[1]))
        return replace(now, values_BHD=torch.where(past_BH1, x_BHD, now.values_BHD), mask_BHD=now.mask_BHD | past_BH1)


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
        x_B1D = self.spec.join(obs_BO, act_BA[:, : self.spec.act_dim])[:, None]
        self.x_BTD = torch.cat([self.x_BTD, x_B1D], 1)[:, 1:]
        self.steps_B += 1

    def of(self, which_B: Tensor) -> Past:
        """The rows before the present one: as many as the episode has, up to `rows`."""
        row_B = (self.steps_B[which_B] // self.spec.stride).clamp(max=self.rows)
        return Past(moved(self.x_BTD[which_B, :: self.spec.stride], self.rows - row_B, self.rows), row_B)


def moved(x_BH: Tensor, by_B: Tensor, rows: int) -> Tensor:
    """(B, rows, ...) of each trajectory the rows from `by_B` on; outside of it stand its first row and its last."""
    if not x_BH.shape[1]:
        return x_BH
    row_BH = by_B[:, None] + torch.arange(rows, device=x_BH.device)
    return x_BH[torch.arange(len(x_BH), device=x_BH.device)[:, None], row_BH.clamp(0, x_BH.shape[1] - 1)]
