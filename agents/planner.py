"""A closed-loop planner: generates plans, trusts what the model could restore, takes the earliest, acts, replans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gentraj.config import require
from gentraj.randomness import fold
from gentraj.trajectory import Condition, TrajectoryModel, TrajectorySpec

from .arrival import Arrival
from .inverse_dynamics import InverseDynamics
from .trust import Trust


@dataclass(frozen=True)
class PlannerConfig:
    arrival: Literal["earliest", "fixed"] = "earliest"
    """Arrive at the earliest trusted row, or always at the last one."""
    replan: int = 12
    """Environment steps between two plans."""
    steps: int = 5
    """Sampling steps of a plan."""
    shares: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
    """Candidates: one arrival per share of the likeliest arrival's probability. None means every second row."""
    trust: float = 0.98
    """Quantile of the data's error below which a plan is trusted."""
    temperature: float = 1.0
    """Scale of the noise a plan starts from."""
    actions: Literal["inverse", "joint"] = "inverse"
    """Actions from inverse dynamics, or from the plan itself."""
    look: int = 12
    """Environment steps that the inverse dynamics looks ahead on the plan."""
    context: tuple[float, ...] = ()
    """What the model is told beside the trajectory, such as the return to aim at; none for a model without context."""
    goal_dims: tuple[int, ...] = ()
    """Entries of the observation that a goal speaks about."""
    rest_dims: tuple[int, ...] = ()
    """Entries that are 0 at rest (velocities), used to hold the goal after the arrival."""
    hold_radius: float = 0.0
    """Distance to the goal (environment units) within which it is held instead of planned for.

    At most the distance that counts as success: a plan, not a straight line, is the way round a corner."""

    def __post_init__(self) -> None:
        require(self, replan=(1, 1e6), steps=(1, 1e6), trust=(0, 1), temperature=(0, math.inf), look=(1, 1e6),
                hold_radius=(0, math.inf))
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"PlannerConfig.shares are {self.shares}; fractions above 0 and up to 1 are expected")


@dataclass(frozen=True)
class Plans:
    """What one decision considered: plans, their arrival rows, trust ratios (at most 1 is trusted), the choice."""

    x_BNHD: Tensor
    row_BN: Tensor
    ratio_BN: Tensor
    chosen_B: Tensor

    def chosen(self) -> tuple[Tensor, Tensor]:
        """The plans to execute (B, H, D) and their arrival rows (B,)."""
        b = torch.arange(len(self.chosen_B), device=self.chosen_B.device)
        return self.x_BNHD[b, self.chosen_B], self.row_BN[b, self.chosen_B]


class Planner:
    """An `Agent`. Plans for all environments that are due and all candidates in one batch of the network.

    `guide` is what the model's `sample` takes: an energy or a plug-in, such as constraints, that shapes every plan.
    """

    def __init__(self, model: TrajectoryModel, config: PlannerConfig, low_A: np.ndarray, high_A: np.ndarray, *,
                 trust: Trust | None = None, inverse: InverseDynamics | None = None, arrival: Arrival | None = None,
                 guide: Any = None):
        if config.actions == "joint" and not model.spec.act_dim:
            raise ValueError("actions='joint' needs a model of observations and actions; this one has no actions")
        if config.actions == "inverse" and inverse is None:
            raise ValueError("actions='inverse' needs inverse dynamics; train them or set actions='joint'")
        if inverse is not None and config.look > inverse.config.look:
            raise ValueError(f"look is {config.look}; the inverse dynamics were trained to look {inverse.config.look} "
                             "steps ahead, give at most that")
        if config.arrival == "earliest" and trust is None:
            raise ValueError("arrival='earliest' needs a trust score; give one or set arrival='fixed'")
        self.model, self.config, self.inverse, self.arrival, self.guide = model, config, inverse, arrival, guide
        self.low_A, self.high_A = torch.as_tensor(low_A).float(), torch.as_tensor(high_A).float()
        self.trust = trust if config.arrival == "earliest" else None
        self.goal_dims = list(config.goal_dims or range(model.spec.obs_dim))
        self.batch = -1
        self._allocate(0)

    @property
    def spec(self) -> TrajectorySpec:
        """What it plans, to be compared with the environment."""
        return self.model.spec

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def network_calls(self) -> int:
        """Calls of the generator so far, those of a trust that asks it among them."""
        return self.model.network_calls

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Forget the plans of the masked environments (all by default); `seeds_B` has a seed for each environment."""
        batch = self.batch if seeds_B is None else len(seeds_B)
        mask_B = torch.ones(batch, dtype=torch.bool) if mask_B is None else mask_B
        self._allocate(len(mask_B))
        self.age_B[mask_B] = self.config.replan
        self.decision_B[mask_B] = 0
        if seeds_B is not None:
            self.seed_B[mask_B] = torch.as_tensor(seeds_B)[mask_B]

    def _allocate(self, batch: int) -> None:
        if self.batch != batch:
            self.batch = batch
            ahead = self.config.replan + self.config.look
            self.target_BTD = torch.zeros(batch, ahead, self.spec.dim, device=self.device)
            self.age_B = torch.full((batch,), self.config.replan)
            self.seed_B, self.decision_B = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) inside the action space. `goal_BG` holds the goal's entries; without one the plan is free."""
        self._allocate(len(obs_BO))
        obs_BO, goal_BG = obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)
        due_B = self.age_B >= self.config.replan
        if due_B.any():
            self._replan(due_B, obs_BO, goal_BG)
        rows, spec = torch.arange(len(obs_BO)), self.model.spec
        if self.inverse is not None and self.config.actions == "inverse":
            target_BO = spec.split(self.target_BTD[rows, self.age_B + self.config.look - 1])[0]
            act_BA = self.inverse(obs_BO, target_BO, self.config.look)
        else:
            act_BA = spec.split(self.target_BTD[rows, self.age_B])[1]
        self.age_B += 1
        return act_BA.cpu().clamp(self.low_A, self.high_A)

    def propose(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds_B: Sequence[int]) -> Plans:
        """Candidates for each environment, scored; the earliest trusted one is chosen, else the most trusted."""
        spec, batch = self.model.spec, len(obs_BO)
        obs_BO, goal_BG = obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)
        row_BN = self._rows(obs_BO, goal_BG)
        num = row_BN.shape[1]
        seeds = [fold(s, n) for s in seeds_B for n in range(num)]
        start = Condition.unknown(spec, batch, device=obs_BO.device).with_obs(0, obs_BO).repeat(num)
        if goal_BG is not None:
            start = start.with_obs(row_BN.flatten(), goal_BG.repeat_interleave(num, 0), self.goal_dims)
        if self.config.context:
            context_C = torch.tensor(self.config.context, device=obs_BO.device)
            start = replace(start, context_BC=context_C.expand(start.batch, -1))
        x_RHD = self.model.sample(start, guide=self.guide, seed=seeds, steps=self.config.steps,
                                  temperature=self.config.temperature)[:, 0]
        ratio_BN = torch.zeros(batch, num, device=self.device)
        if self.trust is not None and num > 1:
            ratio_BN = self.trust.ratio(x_RHD, row_BN.flatten(), seeds).view(batch, num)
        badness_BN = torch.where(ratio_BN <= 1, row_BN.float(), spec.horizon + ratio_BN)
        return Plans(x_RHD.view(batch, num, spec.horizon, spec.dim), row_BN, ratio_BN, badness_BN.argmin(1))

    def _rows(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, N) arrival rows to try."""
        last = self.model.spec.horizon - 1
        if goal_BG is None or self.trust is None:
            return torch.full((len(obs_BO), 1), last, device=obs_BO.device)
        if self.arrival is not None and self.config.shares:
            return self.arrival.propose(obs_BO, goal_BG, self.config.shares)
        return torch.arange(2, last + 1, 2, device=obs_BO.device).expand(len(obs_BO), -1)

    def _replan(self, due_B: Tensor, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """New targets for the environments that are due; those near their goal hold it."""
        near_B = torch.zeros_like(due_B)
        if goal_BG is not None:
            distance_B = (obs_BO[:, self.goal_dims] - goal_BG).norm(dim=-1)
            near_B = due_B & (distance_B <= self.config.hold_radius).cpu()
        for which_B, plan in ((due_B & ~near_B, self._travel), (near_B, self._hold)):
            if which_B.any():
                goal = None if goal_BG is None else goal_BG[which_B]
                self.target_BTD[which_B] = plan(obs_BO[which_B], goal, which_B)
        self.age_B[due_B] = 0
        self.decision_B[due_B] += 1

    def _travel(self, obs_BO: Tensor, goal_BG: Tensor | None, which_B: Tensor) -> Tensor:
        """(B, T, D) targets 1..T environment steps ahead: along the chosen plan, then at rest where it arrives."""
        seeds = [fold(int(s), int(d)) for s, d in zip(self.seed_B[which_B], self.decision_B[which_B], strict=True)]
        self.last = self.propose(obs_BO, goal_BG, seeds)
        x_BHD, row_B = self.last.chosen()
        tau_T = torch.arange(1, self.target_BTD.shape[1] + 1, device=x_BHD.device) / self.model.spec.stride
        below_T = tau_T.floor().long().clamp(max=self.model.spec.horizon - 2)
        weight_T1 = (tau_T - below_T).clamp(max=1)[:, None]
        along_BTD = torch.lerp(x_BHD[:, below_T], x_BHD[:, below_T + 1], weight_T1)
        rest_BD = x_BHD[torch.arange(len(row_B), device=x_BHD.device), row_B]
        arrived_BT1 = (tau_T >= row_B[:, None])[..., None] & (goal_BG is not None)
        return torch.where(arrived_BT1, self._at_rest(rest_BD)[:, None], along_BTD)

    def _hold(self, obs_BO: Tensor, goal_BG: Tensor | None, which_B: Tensor) -> Tensor:
        """(B, T, D) targets: the goal at rest."""
        x_BD = torch.cat([obs_BO, obs_BO.new_zeros(len(obs_BO), self.spec.act_dim)], -1)
        x_BD[:, self.goal_dims] = goal_BG if goal_BG is not None else x_BD[:, self.goal_dims]
        return self._at_rest(x_BD)[:, None].expand(-1, self.target_BTD.shape[1], -1)

    def _at_rest(self, x_BD: Tensor) -> Tensor:
        x_BD = x_BD.clone()
        x_BD[:, list(self.config.rest_dims)] = 0
        return x_BD
