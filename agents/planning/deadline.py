"""A planner that acts by a deadline: it plans in the background, and waits for a plan no longer than the deadline.

While a plan is carried out, the next one is made for the moment at which it is due (real-time chunking, Black et al.
2025). The planner is committed to its steps until then, and the next plan starts from the state to which they should
lead. How early a plan is begun, and how many sampling steps and candidates it may have, follows from how long earlier
plans took.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gentraj.config import require
from gentraj.randomness import fold
from gentraj.trajectory import Agent, only_steps

from .memory import ObservationBuffer, ObservedPrefix, PlanTail
from .planner import PlanFollower
from .planner_config import PlannerConfig
from .sampler import Plans, PlanSampler
from .tracker import PlanTracker

EXPECTED_QUANTILE = 0.9  # of the last durations: what the next plan is expected to take
ACTING_MARGIN = 1.25  # time that is reserved for acting, in units of the longest that acting took
MAX_PASSES = 8  # times that the candidates of one plan are sampled
MAX_WAIT_S = 1e6
MAX_RESET_WAIT_S = 10.0  # for a plan of the episode before, which no longer matters
WARM_UP_PLANS = 3  # plans of each budget that are timed in advance
LATE_STEPS = 8  # that a plan of one step can be followed further if the next one is late
ONE = torch.ones(1, dtype=torch.bool)  # the one environment, as a mask


class PlanThread(ThreadPoolExecutor):
    """One thread, which starts when it is first needed; a copy has a thread of its own."""

    def __init__(self) -> None:
        super().__init__(1, "planner")

    def __deepcopy__(self, memo: object) -> PlanThread:
        return PlanThread()


@dataclass(frozen=True)
class Deadline:
    """How long a planner may take to act. Raises ValueError for a time that is not positive.

    Each planner needs one of its own: the executor makes one plan at a time, and the fallback acts in one environment.
    """

    seconds: float
    """Time from a call of `act` to its return, which is also the time between two calls."""
    fallback: Agent | None = None
    """An agent that acts while there is no plan to follow, as until the first plan of an episode is ready. It starts
    anew, as at the beginning of an episode, whenever it takes over. Without it, the planner stands still."""
    clock: Callable[[], float] = time.perf_counter
    """Returns the time in seconds, which never goes back."""
    executor: Executor = field(default_factory=PlanThread)
    """Makes the plans in the background, one after another."""

    def __post_init__(self) -> None:
        require(self, seconds=(1e-6, 1e6))


class SamplingBudget(NamedTuple):
    """The sampling steps and the candidates that a plan is made with."""

    steps: int
    candidates: int

    @property
    def work(self) -> int:
        """The number of trajectories that are denoised, over all steps."""
        return self.steps * self.candidates

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


def quantile(seconds: Sequence[float], q: float) -> float:
    """The quantile `q` of the durations, which is one of them; 0 without any."""
    if not seconds:
        return 0.0
    return sorted(seconds)[math.ceil(q * (len(seconds) - 1))]


class FinishedPlan(NamedTuple):
    """A plan that can be carried out."""

    plans: Plans
    target_BTD: Tensor
    passes: int
    """The number of times that the candidates were sampled."""
    seconds: float
    """How long the last pass took."""


@dataclass
class PlanJob:
    """A plan that is being made in the background."""

    obs_BO: Tensor
    """The observation that the plan starts from, that of the environment step `starts`."""
    goal_BG: Tensor | None
    starts: int
    until: float
    """The time of the clock at which the plan is needed."""
    budget: SamplingBudget
    seeds: Sequence[int]
    prefix: ObservedPrefix
    tail: PlanTail | None
    finished: FinishedPlan | None = None
    """The best plan of the passes that are done."""
    future: Future[FinishedPlan] | None = None
    """The pass that is being made, if there is one."""

    def __deepcopy__(self, memo: object) -> None:
        """A copy of the planner begins plans of its own."""


class PlanMaker:
    """Makes one plan at a time in the background, and knows how long plans of each budget take.

    While time is left, the candidates of a plan are sampled again with other noise, in another pass, and the best of
    all is chosen.
    """

    def __init__(self, sampler: PlanSampler, tracker: PlanTracker, deadline: Deadline):
        self.tracker, self.executor = tracker, deadline.executor
        self.clock = deadline.clock
        free = replace(sampler.options, steps=None, temperature=1.0)  # the config's are taken
        fixed_steps = only_steps(sampler.model) is not None
        self.samplers = {
            budget: replace(sampler, config=replace(sampler.config, **budget._asdict()), options=free)
            for budget in budgets(sampler.config, fixed_steps=fixed_steps)}
        self.seconds = {budget: deque[float](maxlen=64) for budget in self.samplers}
        self.timed: SamplingBudget | None = None  # that of the last plan
        self.most_passes = MAX_PASSES if sampler.trust is not None or sampler.config.select == "value" else 1
        self.job: PlanJob | None = None
        """The plan that is being made, if there is one."""

    def begin(self, job: PlanJob) -> None:
        self.job = job
        self._begin_pass(job)

    def wait(self, until: float) -> FinishedPlan | None:
        """The best plan by the time `until`, if there is one. Its candidates are sampled again while time is left.

        Raises any error of the planning; there is no job then.
        """
        job = self.job
        while job is not None and job.future is not None:
            try:
                job.finished = job.future.result(min(max(until - self.clock(), 0), MAX_WAIT_S))
            except TimeoutError:
                break
            except Exception:
                self.job = None
                raise
            seconds = self.seconds[job.budget]
            seconds.append(job.finished.seconds)
            self.timed, job.future = job.budget, None
            in_time = self.clock() + quantile(seconds, EXPECTED_QUANTILE) <= job.until
            if in_time and job.finished.passes < self.most_passes:
                self._begin_pass(job)
        return None if job is None else job.finished

    def drop(self, wait_s: float = 0.0) -> None:
        """Forgets the plan, after `wait_s` seconds at most if the executor has begun it.

        Where it has not, no later plan has to wait for it. Errors of the planning are those of a plan that nobody needs
        any more.
        """
        if self.job is not None and self.job.future is not None and not self.job.future.cancel() and wait_s > 0:
            with suppress(Exception):
                self.job.future.result(wait_s)
        self.job = None

    def expected(self, budget: SamplingBudget) -> float:
        """The seconds that sampling the candidates once is expected to take.

        A larger budget than that of the last plan has not been measured since. It takes no longer than the last one in
        proportion to its work, which matters where the machine was slow when it was measured.
        """
        own = quantile(self.seconds[budget], EXPECTED_QUANTILE)
        if self.timed is None or budget.work <= self.timed.work:
            return own
        return min(own, quantile(self.seconds[self.timed], EXPECTED_QUANTILE) * budget.work / self.timed.work)

    def _begin_pass(self, job: PlanJob) -> None:
        """Lets the executor make one more pass, in the context of the caller: `batch_invariant` holds in it, too."""
        job.future = self.executor.submit(copy_context().run, self._pass, job, job.finished)

    @torch.no_grad()
    def _pass(self, job: PlanJob, before: FinishedPlan | None) -> FinishedPlan:
        """Samples candidates, and chooses among them and those of the passes before."""
        start, passes = self.clock(), 0
        seeds = job.seeds
        if before is not None:
            passes = before.passes
            seeds = [fold(seed, passes) for seed in job.seeds]
        plans = self.samplers[job.budget].sample(job.obs_BO, job.goal_BG, seeds, job.prefix, job.tail)
        if before is not None:
            plans = before.plans.joined(plans)
        x_BHD, arrival_step_B = self.samplers[job.budget].filled(plans, self.tracker.ahead, job.seeds)
        target_BTD = self.tracker.targets(x_BHD, None if job.goal_BG is None else arrival_step_B)
        target_BTD.sum().item()  # waits for an accelerator
        return FinishedPlan(plans, target_BTD, passes + 1, self.clock() - start)


class RealTimePlanner(PlanFollower):
    """An `Agent` that plans in one environment, and whose `act` returns within a deadline.

    A plan that takes less than the deadline is made from the present observation, and its candidates are sampled again
    while time is left; the best of all is carried out. A longer one is made while the previous plan is carried out, and
    starts where the steps of that plan end that are carried out meanwhile; a planner with a history is conditioned on
    these steps, too. If planning takes longer than `replan` steps, or than one step where there is no plan to follow,
    plans have fewer sampling steps and candidates.
    Where a plan is late, the previous one is followed further, and where there is none, `deadline.fallback` acts. What
    the planner does depends on how fast the machine is.

    `warm_up` measures how long plans take. Without it, the planner measures its first plans, which may be late.
    """

    def __init__(self, sampler: PlanSampler, tracker: PlanTracker, deadline: Deadline):
        self.deadline, self.clock = deadline, deadline.clock
        # A plan may be followed for longer than `replan` steps, up to its end, if the next one is late.
        config = sampler.config
        end = sampler.spec.times[-1 - config.history] - (tracker.ahead - config.replan)
        reach = max(config.replan, min(end, 2 * config.replan + LATE_STEPS))
        far = replace(tracker, config=replace(config, replan=reach))
        self.maker = PlanMaker(sampler, far, deadline)
        self.acting = deque[float](maxlen=256)  # seconds that `act` takes apart from waiting
        self.acted, self.planned = Counter[str](), Counter[str]()
        super().__init__(sampler, tracker)
        self.tracker = far

    def _allocate(self, batch: int) -> None:
        super()._allocate(batch)
        self._begin_episode()

    def _forget(self, mask_B: Tensor) -> None:
        super()._forget(mask_B)
        if mask_B.any():
            self._begin_episode()

    def _begin_episode(self) -> None:
        self.maker.drop(MAX_RESET_WAIT_S)  # otherwise the first plan of this episode would wait for it
        self.step = 0
        self.began: int | None = None  # the step at which the plan that is followed starts, if there is one
        self.outdated = False  # whether that plan is for another goal
        self.fell_back: int | None = None  # the step at which the fallback last acted

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(1, A) actions inside the action space, within the deadline.

        Raises ValueError for more than one environment, and any error of the planning in the background.
        """
        start = self.clock()
        until = start + self.deadline.seconds - ACTING_MARGIN * quantile(self.acting, 1.0)
        obs_BO, goal_BG = self.sampler.given(obs_BO, goal_BG)
        if len(obs_BO) != 1:
            raise ValueError(f"{len(obs_BO)} observations were given to a planner with a deadline, which acts in one "
                             "environment; give one, or leave the deadline out")
        self._resize(1)
        if self._aim(goal_BG).any():
            if not self.outdated:  # a plan for a goal on the way is better than none
                self.maker.drop()
            self.outdated = True
        if self.step >= self._due():
            self._renew(obs_BO, goal_BG, until)
        resumed = max(start, min(self.clock(), until))  # a thread that wakes up late needs more time to act
        act_BA = self._act_along(obs_BO, goal_BG)
        self.observations.add(obs_BO, act_BA)
        if self.maker.job is None and self.began is not None:
            self._plan_ahead(self.step - self.began, goal_BG, until)
        self.step += 1
        self.acting.append(self.clock() - resumed)
        return act_BA

    def rest(self, seconds: float) -> None:
        """Lets `seconds` pass, in which the planner plans ahead; returns as soon as it has nothing to plan."""
        self.maker.wait(self.clock() + seconds)

    def timing(self) -> dict[str, Any]:
        """Counts and times since the planner was made, by names.

        "acted_by" has the number of environment steps by what the action came from, "plans" the number of plans by
        their sampling steps and candidates, and "plan_ms" the milliseconds that sampling the candidates once is
        expected to take.
        """
        latency = {str(budget): 1000 * self.maker.expected(budget) for budget in self.maker.samplers}
        return {"acted_by": dict(self.acted), "plans": dict(self.planned), "plan_ms": latency}

    @torch.no_grad()
    def warm_up(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Measures for some seconds how long plans from an observation (1, O) to a goal (1, G) take."""
        obs_BO, goal_BG = self.sampler.given(obs_BO, goal_BG)
        self.reset(None, [0])
        for budget, seconds in self.maker.seconds.items():
            for _ in range(WARM_UP_PLANS + 1):
                self._begin_plan(obs_BO, goal_BG, 0, self.observations, -math.inf, budget)
                self.maker.wait(MAX_WAIT_S)
            seconds.popleft()  # the first call of a network takes longer
        for _ in range(WARM_UP_PLANS + 1):
            self.reset(None, [0])
            self.act(obs_BO, goal_BG)
            self.rest(MAX_WAIT_S)
        self.acting.popleft()
        self.acted.clear()
        self.planned.clear()
        self.reset(None, [0])

    def _due(self) -> int:
        """The step at which the next plan is needed."""
        if self.maker.job is not None:
            return self.maker.job.starts
        if self.began is None or self.outdated:
            return self.step
        return self.began + self.config.replan

    def _renew(self, obs_BO: Tensor, goal_BG: Tensor | None, until: float) -> None:
        """Takes the next plan if it is ready in time, or holds the goal where it is near."""
        if goal_BG is not None and self.tracker.is_near(obs_BO, goal_BG).all():
            self.last_plan.planned_B[:] = 0
            self.maker.drop()
            self.target_BTD = self.tracker.at_rest(obs_BO, goal_BG)[:, None].expand(-1, self.tracker.count, -1)
            self.began, self.outdated = self.step, False
            self.decision_B += 1
            return
        if self.maker.job is None:
            self._begin_plan(obs_BO, goal_BG, self.step, self.observations, until, self._budget())
        job, finished = self.maker.job, self.maker.wait(until)
        if job is None or finished is None:
            return
        stood_still = self.began is None and self.deadline.fallback is None  # where the plan starts
        self.began = self.step if stood_still else job.starts
        self.target_BTD, self.last = finished.target_BTD, finished.plans
        self.last_plan.keep(ONE, *finished.plans.chosen(), job.prefix)
        steps, candidates = job.budget
        self.planned[str(SamplingBudget(steps, finished.passes * candidates))] += 1
        self.decision_B += 1
        self.maker.job, self.outdated = None, False
        if job.goal_BG is not None:  # the goal may have moved since the plan was begun
            self.outdated = bool((job.goal_BG - self.goal_BG).norm() > self.config.hold_radius)

    def _act_along(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """The action by the plan that is followed, or else by the fallback, or else at rest."""
        if self.began is not None and self.step < self.began + self.tracker.config.replan:
            in_time = not self.outdated and self.step < self.began + self.config.replan
            self.acted["the plan" if in_time else "the previous plan"] += 1
            return self.tracker.action(obs_BO, self.target_BTD, torch.tensor([self.step - self.began]))
        self.began = None
        fallback = self.deadline.fallback
        if fallback is not None:
            if self.fell_back != self.step - 1:  # the rest of a chunk or of a plan is for the steps after that one
                fallback.reset(None, self._seeds(ONE))
            self.fell_back = self.step
            self.acted["the fallback"] += 1
            return fallback.act(obs_BO, goal_BG).cpu()
        self.acted["standing still"] += 1
        target_BTD = self.tracker.at_rest(obs_BO)[:, None].expand(-1, self.tracker.count, -1)
        return self.tracker.action(obs_BO, target_BTD, torch.zeros(1, dtype=torch.long))

    def _plan_ahead(self, age: int, goal_BG: Tensor | None, until: float) -> None:
        """Begins the next plan if it would be late otherwise. The plan that is followed is `age` steps old.

        The planner is committed to the steps until that plan is due, which are added to the history.
        """
        budget = self._budget()
        lead = self._lead(budget)
        if lead == 0 or age + lead < self.config.replan:
            return
        obs_BTO, act_BTA = self.tracker.spec.split(self.target_BTD)  # one step ahead of the plan's start, and so on
        end = min(age + lead, obs_BTO.shape[1])
        if goal_BG is not None and self.tracker.is_near(obs_BTO[:, end - 1], goal_BG).all():
            return
        observations = self.observations.copy()
        for t in range(age, end - 1):
            observations.add(obs_BTO[:, t], act_BTA[:, t + 1])
        until += lead * self.deadline.seconds
        self._begin_plan(obs_BTO[:, end - 1], goal_BG, self.step + lead, observations, until, budget)

    def _begin_plan(self, obs_BO: Tensor, goal_BG: Tensor | None, starts: int, observations: ObservationBuffer,
                    until: float, budget: SamplingBudget) -> None:
        """Begins a plan in the background, which starts from `obs_BO` at the step `starts`."""
        obs_BO = obs_BO.clone()  # a caller may change its own
        goal_BG = None if goal_BG is None else goal_BG.clone()
        tail = None
        if self.config.shifted:
            tail = self.last_plan.tail(ONE, max(starts - (self.began or 0), 1), goal_BG is not None)
        job = PlanJob(obs_BO, goal_BG, starts, until, budget, self._seeds(ONE), observations.prefix(ONE), tail)
        self.maker.begin(job)

    def _budget(self) -> SamplingBudget:
        """The largest budget with which a plan is ready before the one after it is due, or else the smallest.

        Where no plan is followed, only a plan that is ready within this step is ready soon enough.
        """
        longest = 0 if self.began is None else self.config.replan
        for budget in self.maker.samplers:
            if self._lead(budget) <= longest:
                return budget
        return list(self.maker.samplers)[-1]

    def _lead(self, budget: SamplingBudget) -> int:
        """The number of steps by which a plan has to be begun before it is due; 0 if it is ready within a step."""
        period = self.deadline.seconds
        steps = self.maker.expected(budget) / max(period - quantile(self.acting, EXPECTED_QUANTILE), 0.1 * period)
        return min(max(math.ceil(steps) - 1, 0), self.tracker.config.replan)
