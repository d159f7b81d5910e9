"""A planner that acts by a deadline: it plans in the background, and waits for a plan no longer than the deadline.

While a plan is carried out, the next one is made for the moment at which it is due (real-time chunking, Black et al.
2025). The planner is committed to its steps until then, and the next plan starts from the state to which they should
lead. How early a plan is begun, and how many sampling steps and candidates it has, follows from how long it is expected
to take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gentraj.constraints import Constraint
from gentraj.trajectory import only_steps

from ..planning.planner import PlanFollower, targets_along
from ..planning.sampler import PlannerConfig, Plans, PlanSampler
from ..planning.tracker import PlanTracker
from ..roadmap.courses import Courses
from .background import MAX_RESET_WAIT_S, ONE, WARM_UP_JOBS, Background, BackgroundJob, Deadline, RealTimeAgent

LATE_STEPS = 8  # that a plan of one step can be followed further if the next one is late


class SamplingBudget(NamedTuple):
    """The sampling steps and the candidates that a plan is made with."""

    steps: int
    candidates: int

    def __str__(self) -> str:
        return f"{self.steps} steps, {self.candidates} candidates"


def budgets(config: PlannerConfig, *, fixed_steps: bool = False) -> list[SamplingBudget]:
    """The budgets of a planner, the largest first: its own settings, then half the steps, and so on down to 2 steps,
    and then half the candidates, and so on. With `fixed_steps` the number of steps stays."""
    found = [SamplingBudget(config.steps, config.candidates)]
    while found[-1].steps >= 4 and not fixed_steps:
        found.append(SamplingBudget(found[-1].steps // 2, config.candidates))
    while found[-1].candidates >= 2:
        found.append(SamplingBudget(found[-1].steps, found[-1].candidates // 2))
    return found


@dataclass(eq=False)
class PlanJob(BackgroundJob):
    """A plan that is being made in the background."""

    obs_BO: Tensor
    """The observation of the step at which the plan starts."""
    goal_BG: Tensor | None
    present_BO: Tensor
    """The observation of the step at which the plan is begun."""
    budget: SamplingBudget
    seeds: Sequence[int]
    courses: Courses | None
    plans: Plans = field(init=False)
    target_BTD: Tensor = field(init=False)


class RealTimePlanner(RealTimeAgent, PlanFollower):
    """An `Agent` that plans in one environment, and whose `act` returns within a deadline.

    A plan that takes less than the deadline is made from the present observation. A longer one is made while the
    previous plan is carried out, and starts where the steps of that plan end that are carried out meanwhile. One that
    is stuck plans from where it is. If planning takes longer than `replan` steps, or than one step where there is no
    plan to follow, plans have fewer sampling steps and candidates.
    Where a plan is late, the previous one is followed further, and where there is none, `deadline.fallback` acts. What
    the planner does depends on how fast the machine is.

    `warm_up` measures how long plans take. Without it, the planner measures its first plans, which may be late.
    """

    def __init__(self, sampler: PlanSampler, tracker: PlanTracker, deadline: Deadline):
        # A plan may be followed for longer than `replan` steps, up to its end, if the next one is late.
        config = sampler.config
        looked_ahead = min(tracker.ahead, tracker.count - 1) - config.replan
        end = int(sampler.spec.times[-1] / config.pace) - looked_ahead
        self.reach = max(config.replan, min(end, 2 * config.replan + LATE_STEPS))
        far = replace(tracker, config=replace(config, replan=self.reach))
        options = replace(sampler.options, steps=None, temperature=1.0)  # the config's are taken
        self.samplers = {
            budget: replace(sampler, config=replace(config, **budget._asdict()), options=options)
            for budget in budgets(config, fixed_steps=only_steps(sampler.model) is not None)}
        self.costs = {budget: float(budget.steps * budget.candidates) for budget in self.samplers}
        """What a plan of each budget costs in proportion to the others; in seconds once they are measured."""
        self.background = Background[PlanJob](deadline, self._make, sampler.device)
        super().__init__(sampler, far)
        self.config = config

    def _allocate(self, batch: int) -> None:
        PlanFollower._allocate(self, batch)  # a plan of another episode may still be made, with courses of its own
        super()._allocate(batch)
        self.outdated = False  # whether the plan that is followed is for another goal

    def avoiding(self, obstacles: Sequence[Constraint]) -> RealTimePlanner:
        """Returns a planner whose plans keep out of obstacles, as far as they can, and whose fallback is told of them.
        It takes the place of this one, which knows and counts what it does. Raises ValueError for a planner that has a
        guide already."""
        told = RealTimePlanner(self._outside(obstacles), replace(self.tracker, config=self.config),
                               self.background.deadline.avoiding(obstacles))
        told.background.take_over(self.background)
        told.costs = self.costs
        return told

    def given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.sampler.given(obs_BO, goal_BG)

    def expected(self, budget: SamplingBudget) -> float:
        """The seconds that a plan is expected to take; 0 before the first one."""
        return self.costs[budget] * self.background.relative_seconds()

    def timing(self) -> dict[str, Any]:
        """Counts and times since the planner was made, by names.

        "acted_by" has the number of environment steps by what the action came from, "plans" the number of plans by
        their sampling steps and candidates, and "plan_ms" the milliseconds that a plan is expected to take.
        """
        latency = {str(budget): 1000 * self.expected(budget) for budget in self.samplers}
        return {"acted_by": Counter(self.background.acted), "plans": Counter(self.background.made), "plan_ms": latency}

    @torch.no_grad()
    def warm_up(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Measures for some seconds how long plans from an observation (1, O) to a goal (1, G) take, and acting."""
        obs_BO, goal_BG = self.sampler.given(obs_BO, goal_BG)
        self.reset([0])
        self.courses = None  # it stays where it is
        seconds = dict[SamplingBudget, float]()
        for budget in self.samplers:
            jobs = [self._begin_plan(obs_BO, goal_BG, 0, budget, obs_BO)
                    for _ in range(WARM_UP_JOBS + 1)]
            for job in jobs:
                job.future.result()
            seconds[budget] = max(job.seconds for job in jobs[1:])  # a network's first call takes longer
        self.background.relative.clear()
        if all(seconds.values()):  # else the clock is too coarse to say how plans differ
            self.costs = seconds
            self.background.relative.append(1.0)
        self.reset([0])
        self.background.cold = False
        for _ in range(2 * WARM_UP_JOBS):
            self.act(obs_BO, goal_BG)
            self.rest(MAX_RESET_WAIT_S)
        self.background.forget_warm_up()
        self.reset([0])

    def _renew(self, obs_BO: Tensor, goal_BG: Tensor | None, start: float, until: float) -> None:
        """Takes the next plan if it is needed, and ready by the time `until`, or holds the goal where it is near."""
        if self._aim(goal_BG).any():
            if not self.outdated:  # a plan for a goal on the way is better than none
                self.background.drop()
            self.outdated = True
        due = self.step
        if self.background.job is not None:
            due = self.background.job.starts
        elif self.began is not None and not self.outdated:
            due = self.began + self.config.replan
        if self.step < due:
            return
        if goal_BG is not None and self.tracker.is_near(obs_BO, goal_BG).all():
            self.background.drop()
            self._hold(ONE, obs_BO, goal_BG)
            self.began, self.outdated = self.step, False
            self.decision_B += 1
            return
        if self.background.job is None:
            self._begin_plan(obs_BO, goal_BG, self.step, self._budget()[0], obs_BO)
        job = self.background.take(until - self.background.deadline.clock())
        if job is None:
            return
        if self.began is None and self.background.deadline.fallback is None:  # it stood still where the plan starts
            self.began = self.step
        else:
            self.began = job.starts
        self.target_BTD, self.last = job.target_BTD, job.plans
        self.last_plan.keep(ONE, *job.plans.chosen())
        self.background.made[str(job.budget)] += 1
        self.decision_B += 1
        self.outdated = False
        if job.goal_BG is not None:  # the goal may have moved since the plan was begun
            self.outdated = bool((job.goal_BG - self.goal_BG).norm() > self.config.hold_radius)

    def _carry_out(self, obs_BO: Tensor) -> Tensor | None:
        if self.began is None or self.step >= self.began + self.reach:
            self.began = None
            return None
        late = self.outdated or self.step >= self.began + self.config.replan
        self.background.acted["the previous plan" if late else "the plan"] += 1
        return self.tracker.action(obs_BO, self.target_BTD, torch.tensor([self.step - self.began]))

    def _stand_by(self, obs_BO: Tensor) -> Tensor:
        self.background.acted["standing still"] += 1
        target_BTD = self.tracker.at_rest(obs_BO)[:, None].expand(-1, self.tracker.count, -1)
        return self.tracker.action(obs_BO, target_BTD, torch.zeros(1, dtype=torch.long))

    def _plan_ahead(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Begins the next plan if it would be late otherwise."""
        if self.background.job is not None or self.began is None:
            return
        age = self.step - self.began
        budget, lead = self._budget()
        if lead == 0 or age + lead < self.config.replan:
            return
        obs_BTO, _ = self.tracker.spec.split(self.target_BTD)  # one step ahead of the plan's start, and so on
        end = min(age + lead, obs_BTO.shape[1])
        if goal_BG is not None and self.tracker.is_near(obs_BTO[:, end - 1], goal_BG).all():
            return
        self._begin_plan(obs_BTO[:, end - 1], goal_BG, self.step + lead, budget, obs_BO)

    def _begin_plan(self, obs_BO: Tensor, goal_BG: Tensor | None, starts: int, budget: SamplingBudget,
                    present_BO: Tensor) -> PlanJob:
        """Begins a plan in the background, which starts from `obs_BO` at the step `starts`."""
        job = PlanJob(starts, obs_BO, goal_BG, present_BO, budget, self._seeds(ONE), self.courses,
                      cost=self.costs[budget])
        self.background.begin(job)
        return job

    def _budget(self) -> tuple[SamplingBudget, int]:
        """The budget of the next plan, and the number of steps by which it has to be begun before it is due.

        It is the largest one with which a plan is ready before the one after it is due, or else the smallest. Where no
        plan is followed, only a plan that is ready within this step is ready soon enough.
        """
        for budget in self.samplers:
            lead = self.background.lead(self.expected(budget))
            if lead == 0 or (self.began is not None and lead <= self.config.replan):
                break
        return budget, min(lead, self.reach)

    def _make(self, job: PlanJob) -> None:
        sampler, aim = self.samplers[job.budget], None
        if job.courses is not None and job.goal_BG is not None:
            job.obs_BO, aim = job.courses.ahead(ONE, job.present_BO, job.obs_BO, job.goal_BG)
        job.plans = sampler.sample(job.obs_BO, job.goal_BG, job.seeds, aim=aim)
        target_BTD = targets_along(sampler, self.tracker, job.plans, job.goal_BG, job.seeds)
        job.target_BTD = target_BTD.cpu()  # this waits for an accelerator
