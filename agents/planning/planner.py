"""A closed-loop planner: it samples plans, keeps those that it trusts, acts along the best one, and replans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gentraj.constraints import Constraint, Constraints
from gentraj.diffusion.guidance import Constrained
from gentraj.networks.embedding import padded
from gentraj.randomness import Seeds

from ..episodic import EpisodicAgent
from ..memory import LastPlan, ObservationBuffer
from .sampler import Plans, PlanSampler
from .tracker import PlanTracker


def targets_along(sampler: PlanSampler, tracker: PlanTracker, plans: Plans, goal_BG: Tensor | None,
                  seeds_B: Seeds, multiple: int = 1) -> Tensor:
    """(B, T, D) the targets of the tracker along the chosen plans, which come to rest where they arrive at a goal.
    `multiple` is as in `PlanSampler.sample`."""
    x_BHD, arrival_step_B = sampler.filled(plans, tracker.ahead, seeds_B, multiple)
    if goal_BG is None:
        return tracker.targets(x_BHD, None)
    return tracker.targets(x_BHD, arrival_step_B)


class PlanFollower(EpisodicAgent):
    """Samples plans, follows their targets, and remembers the last plan and the goal of each environment. Of these, the
    last plan alone is where the model is, and the rest on the CPU.

    The tracker follows plans of the layout `sampler.executed`, by the same settings.
    """

    last: Plans
    """The plans of the last decision."""

    def __init__(self, sampler: PlanSampler, tracker: PlanTracker):
        self.sampler, self.tracker = sampler, tracker
        self.spec, self.config = sampler.spec, sampler.config
        self.ranges = sampler.ranges
        self._begin(0)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.sampler.device

    @property
    def network_calls(self) -> int:
        """Calls of the models' networks so far, including those for the trust."""
        return self.sampler.network_calls

    def _allocate(self, batch: int) -> None:
        self.last_plan = LastPlan(self.sampler.spec, batch, self.device)
        self.observations = ObservationBuffer(self.sampler.spec, 0, batch)
        self.goal_BG = torch.full((batch, len(self.sampler.goal_dims)), torch.nan)
        self.target_BTD = torch.zeros(batch, self.tracker.count, self.tracker.spec.dim)
        self.courses = self.sampler.courses(batch)

    def _forget(self, mask_B: Tensor) -> None:
        super()._forget(mask_B)
        if self.courses is not None:
            self.courses.forget(mask_B)

    def _outside(self, obstacles: Sequence[Constraint]) -> PlanSampler:
        """The sampler of plans that keep out of obstacles, as far as they can. Raises ValueError for a planner that has
        a guide already."""
        if self.sampler.guide is not None:
            raise ValueError("the planner has a guide already; add the obstacles to its constraints")
        return replace(self.sampler, guide=Constrained(Constraints(self.sampler.spec, obstacles), strict=False))

    def _aim(self, goal_BG: Tensor | None) -> Tensor:
        """(B,) true where the goal has moved by more than `hold_radius` since the planner aimed at it, which aims at
        the new goal from now on."""
        if goal_BG is None:
            return torch.zeros(len(self.goal_BG), dtype=torch.bool)
        moved_B = ~((self.goal_BG - goal_BG).norm(dim=-1) <= self.config.hold_radius)  # also where there was none
        self.goal_BG = torch.where(moved_B[:, None], goal_BG, self.goal_BG)
        return moved_B

    def _hold(self, near_B: Tensor, obs_BO: Tensor, goal_BG: Tensor) -> None:
        """Stays at the goal in these environments."""
        self.target_BTD[near_B] = self.tracker.at_rest(obs_BO[near_B], goal_BG[near_B])[:, None]


class Planner(PlanFollower):
    """An `Agent` that plans with a model of trajectories.

    All candidates of all environments that need a new plan are sampled in one batch.
    """

    def _allocate(self, batch: int) -> None:
        super()._allocate(batch)
        self.age_B = torch.full((batch,), self.config.replan)

    def _forget(self, mask_B: Tensor) -> None:
        super()._forget(mask_B)
        self.age_B[mask_B] = self.config.replan

    def avoiding(self, obstacles: Sequence[Constraint]) -> Planner:
        """Returns a planner whose plans keep out of obstacles, as far as they can, with no memory of this one's. Raises
        ValueError for a planner that has a guide already."""
        return Planner(self._outside(obstacles), self.tracker)

    @torch.no_grad()
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) actions inside the action space. Without `goal_BG`, the goal's entries, plans have no goal.

        Raises ValueError for observations or goals of another shape, and for NaN and infinity in them.
        """
        obs_BO, goal_BG = self.sampler.given(obs_BO, goal_BG)
        due_B = (self.age_B >= self.config.replan) | self._aim(goal_BG)
        if due_B.any():
            self._replan(due_B, obs_BO, goal_BG)
        along = (padded(x, self.multiple) for x in (obs_BO, self.target_BTD, self.age_B))
        act_BA = self.tracker.action(*along)[: len(obs_BO)]
        self.age_B += 1
        return act_BA

    def decide(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Seeds) -> Tensor:
        """(B, E, A) actions inside the action space, which are carried out before the next decision.

        This is a function of its arguments alone, as `gentraj export` needs it. E is `replan` for joint actions;
        otherwise it is 1, as the later actions depend on later observations. Raises ValueError for a planner with a
        roadmap.
        """
        if self.sampler.far is not None:
            raise ValueError("the planner searches its roadmap, which is no part of a decision; take the agent of "
                             "gentraj.runs.straight(run), which plans for goals within reach, as gentraj export does")
        obs_BO = obs_BO.to(self.device)
        goal_BG = None if goal_BG is None else goal_BG.to(self.device)
        plans = self.sampler.sample(obs_BO, goal_BG, seeds)
        target_BTD = targets_along(self.sampler, self.tracker, plans, goal_BG, seeds)
        if goal_BG is not None:
            near_B = self.tracker.is_near(obs_BO, goal_BG)
            target_BTD = torch.where(near_B[:, None, None], self.tracker.at_rest(obs_BO, goal_BG)[:, None], target_BTD)
        return self.tracker.chunk(obs_BO, target_BTD)

    def _replan(self, due_B: Tensor, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Sets new targets in the environments that are due: those near their goal hold it, the others plan."""
        near_B = due_B & self.tracker.is_near(obs_BO, goal_BG)
        far_B = due_B & ~near_B
        if far_B.any():
            goal, aim = None, None
            if goal_BG is not None:
                goal = goal_BG[far_B]
            if self.courses is not None and goal is not None:
                aim = self.courses.aim(far_B, obs_BO[far_B], goal)
            seeds = self._seeds(far_B)
            self.last = self.sampler.decide(obs_BO[far_B], goal, seeds, aim=aim, multiple=self.multiple)
            self.last_plan.keep(far_B, *self.last.chosen())
            target_BTD = targets_along(self.sampler, self.tracker, self.last, goal, seeds, self.multiple)
            self.target_BTD[far_B] = target_BTD.cpu()
        if goal_BG is not None and near_B.any():
            self._hold(near_B, obs_BO, goal_BG)
        self.age_B[due_B] = 0
        self.decision_B[due_B] += 1
