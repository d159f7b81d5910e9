"""From plans to actions: the targets of each environment step, and the memory of past steps and previous plans."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gentraj.randomness import unfold
from gentraj.trajectory import Condition, TrajectorySpec


def at_rest(spec: TrajectorySpec, obs_BO: Tensor, rest_dims: Sequence[int]) -> Tensor:
    """(B, D) timesteps with these observations, in which the entries `rest_dims` and the action are set to 0."""
    obs_BO = obs_BO.clone()
    obs_BO[:, list(rest_dims)] = 0
    return spec.join(obs_BO, obs_BO.new_zeros(len(obs_BO), spec.act_dim))


def targets(spec: TrajectorySpec, x_BHD: Tensor, count: int, arrival_B: Tensor | None,
            rest_dims: Sequence[int]) -> Tensor:
    """(B, T, D): the observations 1 .. T environment steps ahead, each with the action of the step that leads there.

    Plans are interpolated linearly between two timesteps. From the timestep of arrival on, if there is one, the targets
    stay at rest where the plan arrived.
    """
    row_T = spec.fractional_index(torch.arange(count + 1, device=x_BHD.device))
    along_BTD = between(x_BHD, row_T)
    if arrival_B is not None:
        last_B = arrival_B.clamp(max=x_BHD.shape[1] - 1)  # a plan that arrives later has not arrived yet
        there_BO = spec.split(x_BHD[torch.arange(len(x_BHD), device=x_BHD.device), last_B])[0]
        arrived_BT1 = (row_T >= arrival_B[:, None])[..., None]
        along_BTD = torch.where(arrived_BT1, at_rest(spec, there_BO, rest_dims)[:, None], along_BTD)
    return spec.join(spec.split(along_BTD[:, 1:])[0], spec.split(along_BTD[:, :-1])[1])


def between(x_BHD: Tensor, tau_T: Tensor) -> Tensor:
    """(B, T, D) plans interpolated linearly at the times `tau_T`, in timesteps; the last one repeats after the end."""
    below_T = tau_T.floor().long().clamp(max=x_BHD.shape[1] - 2)
    return torch.lerp(x_BHD[:, below_T], x_BHD[:, below_T + 1], (tau_T - below_T).clamp(max=1)[:, None])


def shift_time(x_BH: Tensor, by_B: Tensor) -> Tensor:
    """(B, H, ...) trajectories that begin at timestep `by_B` of each; past either end, the end repeats."""
    row_BH = by_B[:, None] + torch.arange(x_BH.shape[1], device=x_BH.device)
    return x_BH[torch.arange(len(x_BH), device=x_BH.device)[:, None], row_BH.clamp(0, max(x_BH.shape[1] - 1, 0))]


@dataclass(frozen=True)
class Previous:
    """The plans (B, H, D) of the last decisions, their arrival timesteps `row_B`, and the number of timesteps `rows_B`
    that were planned, which is 0 for an environment without a previous plan."""

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
        """What is left of the plans after `rows` timesteps, possibly a fraction. Where nothing is left, the arrival is
        at `otherwise_B`."""
        h_H = torch.arange(self.x_BHD.shape[1], device=self.x_BHD.device)
        real_BH = h_H <= (self.rows_B - 1 - rows)[:, None]
        if not goals:
            return Left(between(self.x_BHD, h_H + rows), real_BH, otherwise_B)
        row_B = (self.row_B - rows).ceil().long()
        real_BH = real_BH & (h_H <= row_B[:, None]) & (row_B >= 1)[:, None]  # nothing is planned after it
        row_B = torch.where(real_BH.any(1), row_B, otherwise_B)
        return Left(between(self.x_BHD, h_H + rows), real_BH, row_B)


@dataclass(frozen=True)
class Left:
    """What is left of plans: `real_BH` is true for the timesteps that remain, `row_B` the arrival timesteps."""

    x_BHD: Tensor
    real_BH: Tensor
    row_B: Tensor

    def add_to(self, start: Condition, now_B: Tensor) -> Condition:
        """`start`, which has N conditions for each plan, with what is left of the plan added to the first of the N.

        Entries that `start` knows already keep their values. What is left begins at timestep `now_B`, the present.
        """
        first_N = torch.arange(start.batch // len(self.row_B), device=self.x_BHD.device) == 0
        x_BHD, real_BH = (shift_time(x_BH, -now_B) for x_BH in (self.x_BHD, self.real_BH))
        added = (real_BH[:, None] & first_N[:, None]).flatten(0, 1)[..., None] & ~start.mask_BHD
        x_RHD = x_BHD.repeat_interleave(len(first_N), 0)
        return replace(start, values_BHD=torch.where(added, x_RHD, start.values_BHD), mask_BHD=start.mask_BHD | added)


@dataclass(frozen=True)
class Past:
    """The timesteps before the present, the oldest first. The first `now_B` of each environment are real, so that the
    present is timestep `now_B` of its plan."""

    x_BKD: Tensor
    now_B: Tensor

    @classmethod
    def none(cls, spec: TrajectorySpec, batch: int, device: torch.device) -> Past:
        return cls(torch.zeros(batch, 0, spec.dim, device=device), torch.zeros(batch, dtype=torch.long, device=device))

    def condition(self, spec: TrajectorySpec, obs_BO: Tensor) -> Condition:
        """The past, and the present observation after it, as a condition (Ajay et al. 2023, algorithm 1)."""
        condition = Condition.empty(spec, len(obs_BO), device=obs_BO.device).with_prefix(self.x_BKD)
        past_BH1 = (torch.arange(spec.horizon, device=obs_BO.device) < self.now_B[:, None])[..., None]
        return replace(condition, mask_BHD=condition.mask_BHD & past_BH1).with_obs(self.now_B, obs_BO)


class History:
    """The last observations and actions of each environment, as far back as `rows` timesteps of a plan reach."""

    def __init__(self, spec: TrajectorySpec, rows: int, batch: int, device: torch.device):
        self.spec, self.rows = spec, rows
        self.x_BTD = torch.zeros(batch, rows * spec.stride, spec.dim, device=device)  # the newest is the last
        self.steps_B = torch.zeros(batch, dtype=torch.long, device=device)

    def forget(self, mask_B: Tensor) -> None:
        self.steps_B[mask_B] = 0

    def add(self, obs_BO: Tensor, act_BA: Tensor) -> None:
        """Appends the observation and the action of one environment step, in every environment."""
        x_B1D = self.spec.join(obs_BO, act_BA[:, : self.spec.act_dim])[:, None].to(self.x_BTD)
        self.x_BTD = torch.cat([self.x_BTD, x_B1D], 1)[:, 1:]
        self.steps_B += 1

    def copy(self) -> History:
        """A history that goes on apart from this one."""
        other = copy.copy(self)
        other.steps_B = self.steps_B.clone()
        return other

    def of(self, which_B: Tensor) -> Past:
        """The timesteps before the present: as many as the episode has had, up to `rows`."""
        now_B = (self.steps_B[which_B] // self.spec.stride).clamp(max=self.rows)
        return Past(shift_time(self.x_BTD[which_B, :: self.spec.stride], self.rows - now_B), now_B)


def seeds_of(seed: int, rows: int, candidates: int) -> list[int]:
    """A seed for each candidate of each arrival timestep. The seed of the first candidate does not depend on their
    number."""
    return [one for first in unfold(rows, seed) for one in (first, *unfold(candidates - 1, first))]
