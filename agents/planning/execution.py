"""Between plans and actions: where a plan leads step by step, and what is remembered of it and of the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gentraj.randomness import unfold
from gentraj.trajectory import Condition, TrajectorySpec


def at_rest(spec: TrajectorySpec, obs_BO: Tensor, rest_dims: Sequence[int]) -> Tensor:
    """(B, D) rows of these observations, but for their entries `rest_dims`, which are 0, as is the action."""
    obs_BO = obs_BO.clone()
    obs_BO[:, list(rest_dims)] = 0
    return spec.join(obs_BO, obs_BO.new_zeros(len(obs_BO), spec.act_dim))


def targets(spec: TrajectorySpec, x_BHD: Tensor, count: int, arrival_B: Tensor | None,
            rest_dims: Sequence[int]) -> Tensor:
    """(B, T, D): the observations 1 .. T environment steps ahead, each beside the action of the step that leads there.

    Between two timesteps of a plan it is linear. From the row of arrival on, where there is one, it is at rest there.
    """
    row_T = spec.rows(torch.arange(count + 1, device=x_BHD.device))
    along_BTD = between(x_BHD, row_T)
    if arrival_B is not None:
        last_B = arrival_B.clamp(max=x_BHD.shape[1] - 1)  # who arrives later is not there yet
        there_BO = spec.split(x_BHD[torch.arange(len(x_BHD), device=x_BHD.device), last_B])[0]
        arrived_BT1 = (row_T >= arrival_B[:, None])[..., None]
        along_BTD = torch.where(arrived_BT1, at_rest(spec, there_BO, rest_dims)[:, None], along_BTD)
    return spec.join(spec.split(along_BTD[:, 1:])[0], spec.split(along_BTD[:, :-1])[1])


def between(x_BHD: Tensor, tau_T: Tensor) -> Tensor:
    """(B, T, D) the plans at times counted in rows; past the last row it is the last."""
    below_T = tau_T.floor().long().clamp(max=x_BHD.shape[1] - 2)
    return torch.lerp(x_BHD[:, below_T], x_BHD[:, below_T + 1], (tau_T - below_T).clamp(max=1)[:, None])


def shift_time(x_BH: Tensor, by_B: Tensor) -> Tensor:
    """(B, H, ...) of each trajectory the rows from `by_B` on; outside of it stand its first row and its last."""
    row_BH = by_B[:, None] + torch.arange(x_BH.shape[1], device=x_BH.device)
    return x_BH[torch.arange(len(x_BH), device=x_BH.device)[:, None], row_BH.clamp(0, max(x_BH.shape[1] - 1, 0))]


@dataclass(frozen=True)
class Previous:
    """The plans of the last decisions, their arrival rows, and how many of their rows were planned: 0 of none."""

    x_BHD: Tensor
    row_B: Tensor
    rows_B: Tensor

    @classmethod
    def none(cls, spec: TrajectorySpec, batch: int, device: torch.device) -> Previous:
        x_BHD = torch.zeros(batch, spec.horizon, spec.dim, device=device)
        row_B = torch.zeros(batch, dtype=torch.long, device=device)
        return cls(x_BHD, row_B, row_B.clone())

    def of(self, which_B: Tensor) -> Previous:
        return Previous(self.x_BHD[which_B], self.row_B[which_B], self.rows_B[which_B])

    def forget(self, which_B: Tensor) -> None:
        self.rows_B[which_B] = 0

    def keep(self, which_B: Tensor, x_BHD: Tensor, row_B: Tensor, rows_B: Tensor) -> None:
        self.x_BHD[which_B], self.row_B[which_B], self.rows_B[which_B] = x_BHD, row_B, rows_B

    def left(self, rows: float, otherwise_B: Tensor, goals: bool) -> Left:
        """What is left after so many rows (a fraction may be among them). Where nothing is, the arrival is another."""
        h_H = torch.arange(self.x_BHD.shape[1], device=self.x_BHD.device)
        real_BH = h_H <= (self.rows_B - 1 - rows)[:, None]
        if not goals:
            return Left(between(self.x_BHD, h_H + rows), real_BH, otherwise_B)
        row_B = (self.row_B - rows).ceil().long()
        real_BH = real_BH & (h_H <= row_B[:, None]) & (row_B >= 1)[:, None]  # what comes after the arrival is not meant
        row_B = torch.where(real_BH.any(1), row_B, otherwise_B)
        return Left(between(self.x_BHD, h_H + rows), real_BH, row_B)


@dataclass(frozen=True)
class Left:
    """What is left of plans, where it is real, and the row at which they arrive."""

    x_BHD: Tensor
    real_BH: Tensor
    row_B: Tensor

    def known_in(self, start: Condition, now_B: Tensor) -> Condition:
        """`start`, N in a row for each plan; the first of them knows what is left, except where it knows better.

        What is left begins at its row `now_B`, the present, before which all is known.
        """
        each = torch.arange(start.batch // len(self.row_B), device=self.x_BHD.device) == 0
        x_BHD, real_BH = (shift_time(of, -now_B) for of in (self.x_BHD, self.real_BH))
        known = (real_BH[:, None] & each[:, None]).flatten(0, 1)[..., None] & ~start.mask_BHD
        x_RHD = x_BHD.repeat_interleave(len(each), 0)
        return replace(start, values_BHD=torch.where(known, x_RHD, start.values_BHD), mask_BHD=start.mask_BHD | known)


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
    """The last steps of each environment, observation and action, as far back as `rows` timesteps of a plan reach."""

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
        return Past(shift_time(self.x_BTD[which_B, :: self.spec.stride], self.rows - now_B), now_B)


def seeds_of(seed: int, rows: int, candidates: int) -> list[int]:
    """A seed for each candidate of each arrival row. The first one of a row does not depend on how many there are."""
    return [one for first in unfold(rows, seed) for one in (first, *unfold(candidates - 1, first))]
