"""A planner that acts by a deadline: it plans in the background, and waits for a plan no longer than the deadline.

While a plan is carried out, the next one is made for the moment at which it is due (real-time chunking, Black et al.
2025). The planner is committed to its steps until then, and the next plan starts from the state to which they should
lead. How early a plan is begun, and how many sampling steps and candidates it may have, follows from how long earlier
plans took.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from gentraj.config import require
from gentraj.randomness import fold
from gentraj.trajectory import Agent, only_steps

from .execution import History, Past, Previous, at_rest
from .planner import Planner, PlannerConfig, Plans, choice

Result = TypeVar("Result")
USUAL = 0.9  # quantile of the last latencies that the next plan is expected to take; a late one misses no deadline
MARGIN = 1.25  # time that is reserved for acting, in units of the longest that acting took
MOST_PASSES = 8  # times that the candidates of one plan are sampled
FOREVER = 1e6  # seconds
ENDING = 10.0  # seconds that a new episode may wait for a plan of the one before, which no longer matters
MEASURED = 3  # plans of each effort that are timed in advance
LATE = 8  # steps that a plan of one step can be followed further if the next one is late


class Worker(Protocol):
    """Runs functions in the background, one after another, as `concurrent.futures.Executor` does."""

    def submit(self, function: Callable[..., Result], /, *args: Any) -> Future[Result]: ...


class Background:
    """A `Worker` with one thread, which starts when it is first needed; a copy, and a forked process, have a thread of
    their own."""

    def __init__(self) -> None:
        self.threads: ThreadPoolExecutor | None = None
        self.process = 0

    def submit(self, function: Callable[..., Result], /, *args: Any) -> Future[Result]:
        if self.threads is None or self.process != os.getpid():  # a fork copies no threads
            self.threads, self.process = ThreadPoolExecutor(1, "planner"), os.getpid()
        return self.threads.submit(function, *args)

    def __deepcopy__(self, memo: object) -> Background:
        return Background()


@dataclass(frozen=True)
class Deadline:
    """How long a planner may take to act. Raises ValueError for a time that is not positive.

    Each planner needs one of its own, as the worker makes one plan at a time and the fallback acts in one environment.
    """

    seconds: float
    """Time from a call of `act` to its return, which is also the time between two calls."""
    fallback: Agent | None = None
    """An agent that acts while there is no plan to follow, as until the first plan of an episode is ready. It starts
    anew, as at the beginning of an episode, whenever it takes over. Without it, the planner stands still."""
    clock: Callable[[], float] = time.perf_counter
    """Returns the time in seconds, which never goes back."""
    worker: Worker = field(default_factory=Background)
    """Makes the plans."""

    def __post_init__(self) -> None:
        require(self, seconds=(1e-6, 1e6))


class Effort(NamedTuple):
    """The sampling steps and the candidates that a plan is made with."""

    steps: int
    candidates: int

    @property
    def work(self) -> int:
        """The number of trajectories that are denoised, over all steps."""
        return self.steps * self.candidates

    def __str__(self) -> str:
        return f"{self.steps} steps, {self.candidates} candidates"


def efforts(config: PlannerConfig, *, fixed_steps: bool = False) -> list[Effort]:
    """The efforts that a planner may make, the largest first: its own settings, then half the steps, and so on down to
    2 steps, and then half the candidates, and so on. With `fixed_steps` the number of steps stays."""
    steps = [config.steps] if fixed_steps else list(halved(config.steps, min(2, config.steps)))
    fewer = list(halved(config.candidates, 1))[1:]
    return [*(Effort(s, config.candidates) for s in steps), *(Effort(steps[-1], c) for c in fewer)]


def halved(number: int, least: int) -> Iterator[int]:
    while number >= least:
        yield number
        number //= 2


class Durations:
    """The last durations of one kind of work, in seconds; as many are remembered as `count` says."""

    def __init__(self, count: int) -> None:
        self.seconds: deque[float] = deque(maxlen=count)

    def add(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def quantile(self, q: float) -> float:
        """The quantile `q` of the durations, which is one of them; 0 without any."""
        return sorted(self.seconds)[math.ceil(q * (len(self.seconds) - 1))] if self.seconds else 0.0


class Ready(NamedTuple):
    """A plan that can be carried out."""

    plans: Plans
    target_BTD: Tensor
    passes: int
    """The number of times that the candidates were sampled."""
    seconds: float
    """How long the last pass took."""


@dataclass
class Job:
    """A plan that is being made in the background."""

    obs_BO: Tensor
    """The observation that the plan starts from, that of the environment step `starts`."""
    goal_BG: Tensor | None
    starts: int
    until: float
    """The time of the clock at which the plan is needed."""
    effort: Effort
    seeds: Sequence[int]
    previous: Previous | None
    since: int
    """Environment steps from the start of the plan before it."""
    past: Past
    ready: Ready | None = None
    """The best plan of the passes that are done."""
    future: Future[Ready] | None = None
    """The pass that is being made, if there is one."""

    def __deepcopy__(self, memo: object) -> None:
        """A copy of the planner begins plans of its own."""


class RealTimePlanner(Planner):
    """A `Planner` for one environment, whose `act` returns within a deadline; other arguments are those of `Planner`.

    A plan that takes less than the deadline is made from the present observation, and its candidates are sampled again
    while time is left; the best of all is carried out. A longer one is made while the previous plan is carried out, and
    starts where the steps of that plan end that are carried out meanwhile; a planner with a history is conditioned on
    these steps, too. If planning takes longer than `replan` steps, or than one step where there is no plan to follow,
    plans have fewer sampling steps and candidates.
    Where a plan is late, the previous one is followed further, and where there is none, `deadline.fallback` acts. What
    the planner does depends on how fast the machine is.

    With an `example`, an observation (1, O) and a goal (1, G) or None, the constructor measures for some seconds how
    long plans take. Without one, the planner measures its first plans, which may be late.
    """

    def __init__(self, *args: Any, deadline: Deadline, example: tuple[Tensor, Tensor | None] | None = None,
                 **components: Any):
        self.deadline, self.clock, self.job = deadline, deadline.clock, None
        super().__init__(*args, **components)
        # A plan may be followed for longer than `replan` steps, up to its end, if the next one is late.
        end = self.model.spec.times[-1 - self.config.history] - (self.config.ahead - self.config.replan)
        self.reach = max(self.config.replan, min(end, 2 * self.config.replan + LATE))
        self.far = self.with_config(replace(self.config, replan=self.reach))
        self.chooses = self.trust is not None or self.config.select == "value"
        fixed = only_steps(self.model) is not None
        self.latency = {effort: Durations(64) for effort in efforts(self.config, fixed_steps=fixed)}
        self.timed: Effort | None = None  # that of the last plan
        self.acting = Durations(256)  # what `act` takes apart from waiting
        self.acted, self.planned = Counter[str](), Counter[str]()
        if example is not None:
            self._warm_up(*example)

    def _allocate(self, batch: int) -> None:
        super()._allocate(batch)
        self._begin_episode()

    def _forget(self, mask_B: Tensor) -> None:
        super()._forget(mask_B)
        if mask_B.any():
            self._begin_episode()

    def _begin_episode(self) -> None:
        if self.job is not None and self.job.future is not None:
            with suppress(Exception):  # also those of a plan that nobody needs any more
                self.job.future.result(ENDING)  # the first plan would have to wait for this one
        self.step = 0
        self.began: int | None = None  # the step at which the plan that is followed starts, if there is one
        self.outdated = False  # whether that plan is for another goal
        self.job: Job | None = None  # the next plan, if it is being made
        self.fell_back = -1  # the step at which the fallback last acted; it is reset with the planner

    def _drop(self) -> None:
        """Forgets the next plan. Where the worker has not begun it, no later plan has to wait for it."""
        if self.job is not None and self.job.future is not None:
            self.job.future.cancel()
        self.job = None

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """As `Planner.reset`. A plan that is being made is waited for, up to 10 seconds, and dropped."""
        super().reset(mask_B, seeds_B)
        if self.deadline.fallback is not None:
            self.deadline.fallback.reset(mask_B, seeds_B)

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(1, A) actions inside the action space, within the deadline.

        Raises ValueError for more than one environment, and any error of the planning in the background.
        """
        start = self.clock()
        until = start + self.deadline.seconds - MARGIN * self.acting.quantile(1.0)
        obs_BO, goal_BG = self._given(obs_BO, goal_BG)
        if len(obs_BO) != 1:
            raise ValueError(f"{len(obs_BO)} observations were given to a planner with a deadline, which acts in one "
                             "environment; give one, or leave the deadline out")
        self._resize(1)
        if self._moved(obs_BO, goal_BG).any():
            if not self.outdated:  # a plan for a goal on the way is better than none
                self._drop()
            self.outdated = True
        if self.step >= self._due():
            self._renew(obs_BO, goal_BG, until)
        resumed = max(start, min(self.clock(), until))  # a thread that wakes up late needs more time to act
        act_BA = self._act_along(obs_BO, goal_BG)
        self.history.add(obs_BO, act_BA.to(self.device))
        if self.job is None and self.began is not None:
            self._plan_ahead(self.step - self.began, goal_BG, until)
        self.step += 1
        self.acting.add(self.clock() - resumed)
        return act_BA

    def rest(self, seconds: float) -> None:
        """Lets `seconds` pass, in which the planner plans ahead; returns as soon as it has nothing to plan."""
        if self.job is not None:
            self._wait(self.job, self.clock() + seconds)

    def timing(self) -> dict[str, Any]:
        """Counts and times since the planner was made, by names.

        "acted_by" has the number of environment steps by what the action came from, "plans" the number of plans by
        their sampling steps and candidates, and "plan_ms" the milliseconds that sampling the candidates once is
        expected to take.
        """
        latency = {str(effort): 1000 * self._expected(effort) for effort in self.latency}
        return {"acted_by": dict(self.acted), "plans": dict(self.planned), "plan_ms": latency}

    @torch.no_grad()
    def _warm_up(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        self.reset(None, [0])
        obs_BO, goal_BG = obs_BO.to(self.device), None if goal_BG is None else goal_BG.to(self.device)
        for effort, durations in self.latency.items():
            for _ in range(MEASURED + 1):
                self._wait(self._plan(obs_BO, goal_BG, 0, self.history, -math.inf, effort), FOREVER)
            durations.seconds.popleft()  # the first call of a network takes longer
        for _ in range(MEASURED + 1):
            self.reset(None, [0])
            self.act(obs_BO, goal_BG)
            self.rest(FOREVER)
        self.acting.seconds.popleft()
        self.acted.clear()
        self.planned.clear()
        self.reset(None, [0])

    def _due(self) -> int:
        """The step at which the next plan is needed."""
        if self.job is not None:
            return self.job.starts
        return self.step if self.began is None or self.outdated else self.began + self.config.replan

    def _renew(self, obs_BO: Tensor, goal_BG: Tensor | None, until: float) -> None:
        """Takes the next plan if it is ready in time, or holds the goal where it is near."""
        if goal_BG is not None and self.is_near_goal(obs_BO, goal_BG).all():
            self.previous.forget(torch.ones(1, dtype=torch.bool))
            target_BTD = self.hold_goal(obs_BO, goal_BG)[:, None].expand(-1, self.far.longest, -1)
            self._drop()
            self.target_BTD, self.began, self.outdated = target_BTD, self.step, False
            self.decision_B += 1
            return
        job = self.job or self._plan(obs_BO, goal_BG, self.step, self.history, until, self._effort())
        if (ready := self._wait(job, until)) is None:
            return
        waited = self.began is None and self.deadline.fallback is None  # standing still, where the plan starts
        self.target_BTD, self.began, self.last = ready.target_BTD, self.step if waited else job.starts, ready.plans
        self.previous.keep(torch.ones(1, dtype=torch.bool), *ready.plans.chosen(), self.spec.horizon - job.past.now_B)
        steps, candidates = job.effort
        self.planned[str(Effort(steps, ready.passes * candidates))] += 1
        self.decision_B += 1
        self.job, self.outdated = None, False
        if job.goal_BG is not None:  # the goal may have moved since the plan was begun
            self.outdated = bool((job.goal_BG - self.aim_BG).norm() > self.config.hold_radius)

    def _act_along(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """The action by the plan that is followed, or else by the fallback, or else at rest."""
        if self.began is not None and self.step < self.began + self.reach:
            in_time = not self.outdated and self.step < self.began + self.config.replan
            self.acted["the plan" if in_time else "the previous plan"] += 1
            return self.follow(obs_BO, self.target_BTD, torch.tensor([self.step - self.began]))
        self.began = None
        if (fallback := self.deadline.fallback) is not None:
            if self.fell_back != self.step - 1:  # the rest of a chunk or of a plan is for the steps after that one
                fallback.reset(None, self._seeds(torch.ones(1, dtype=torch.bool)))
            self.fell_back = self.step
            self.acted["the fallback"] += 1
            return fallback.act(obs_BO, goal_BG).cpu()
        self.acted["standing still"] += 1
        target_BTD = at_rest(self.executed, obs_BO, self.config.rest_dims)[:, None]
        return self.follow(obs_BO, target_BTD.expand(-1, self.config.lookahead, -1), torch.zeros(1, dtype=torch.long))

    def _plan_ahead(self, age: int, goal_BG: Tensor | None, until: float) -> None:
        """Begins the next plan if it would be late otherwise. The plan that is followed is `age` steps old.

        The planner is committed to the steps until that plan is due, which are added to the history.
        """
        effort = self._effort()
        lead = self._lead(effort)
        if lead == 0 or age + lead < self.config.replan:
            return
        obs_BTO, act_BTA = self.executed.split(self.target_BTD)  # one step ahead of the plan's start, and so on
        end = min(age + lead, obs_BTO.shape[1])
        if goal_BG is not None and self.is_near_goal(obs_BTO[:, end - 1], goal_BG).all():
            return
        history = self.history.copy()
        for t in range(age, end - 1):
            history.add(obs_BTO[:, t], act_BTA[:, t + 1])
        until += lead * self.deadline.seconds
        self._plan(obs_BTO[:, end - 1], goal_BG, self.step + lead, history, until, effort)

    def _effort(self) -> Effort:
        """The largest effort with which a plan is ready before the one after it is due, or else the smallest.

        Where no plan is followed, only a plan that is ready within this step is ready soon enough.
        """
        longest = 0 if self.began is None else self.config.replan
        return next((each for each in self.latency if self._lead(each) <= longest), [*self.latency][-1])

    def _expected(self, effort: Effort) -> float:
        """The seconds that sampling the candidates once is expected to take.

        A larger effort than that of the last plan has not been measured since. It takes no longer than the last one in
        proportion to its work, which matters where the machine was slow when it was measured.
        """
        own = self.latency[effort].quantile(USUAL)
        if self.timed is None or effort.work <= self.timed.work:
            return own
        return min(own, self.latency[self.timed].quantile(USUAL) * effort.work / self.timed.work)

    def _lead(self, effort: Effort) -> int:
        """The number of steps by which a plan has to be begun before it is due; 0 if it is ready within a step."""
        period = self.deadline.seconds
        steps = self._expected(effort) / max(period - self.acting.quantile(USUAL), 0.1 * period)
        return min(max(math.ceil(steps) - 1, 0), self.reach)

    def _plan(self, obs_BO: Tensor, goal_BG: Tensor | None, starts: int, history: History, until: float,
              effort: Effort) -> Job:
        """Begins a plan in the background, which starts from `obs_BO` at the step `starts`."""
        all_B = torch.ones(1, dtype=torch.bool)
        previous = self.previous.of(all_B) if self.config.shifted else None
        since = max(starts - (self.began or 0), 1)
        obs_BO, goal_BG = obs_BO.clone(), None if goal_BG is None else goal_BG.clone()  # a caller may change its own
        job = Job(obs_BO, goal_BG, starts, until, effort, self._seeds(all_B), previous, since, history.of(all_B))
        job.future = self._begin_pass(job)
        self.job = job
        return job

    def _wait(self, job: Job, until: float) -> Ready | None:
        """The best plan by the time `until`, if there is one. Its candidates are sampled again while time is left."""
        durations = self.latency[job.effort]
        while job.future is not None:
            try:
                job.ready = job.future.result(min(max(until - self.clock(), 0), FOREVER))
            except TimeoutError:
                break
            except Exception:
                self.job = None  # the next call plans anew
                raise
            durations.add(job.ready.seconds)
            self.timed = job.effort
            again = self.chooses and job.ready.passes < MOST_PASSES
            in_time = self.clock() + durations.quantile(USUAL) <= job.until
            job.future = self._begin_pass(job) if again and in_time else None
        return job.ready

    def _begin_pass(self, job: Job) -> Future[Ready]:
        """Lets the worker make one more pass, in the context of the caller: `batch_invariant` holds in it, too."""
        return self.deadline.worker.submit(copy_context().run, self._pass, job, job.ready)

    @torch.no_grad()
    def _pass(self, job: Job, before: Ready | None) -> Ready:
        """Samples candidates, and chooses among them and those of the passes before."""
        start, passes = self.clock(), before.passes if before else 0
        steps, candidates = job.effort
        planner = self.with_config(replace(self.config, steps=steps, candidates=candidates, replan=job.since))
        seeds = [fold(seed, passes) for seed in job.seeds] if passes else job.seeds
        plans = planner.propose(job.obs_BO, job.goal_BG, seeds, job.previous, job.past)
        if before is not None:
            plans = joined(before.plans, plans)
        target_BTD = self.far.targets_along(plans, job.goal_BG, job.seeds)
        target_BTD.sum().item()  # waits for an accelerator
        return Ready(plans, target_BTD, passes + 1, self.clock() - start)


def joined(some: Plans, more: Plans) -> Plans:
    """The plans of two passes, the best of which is chosen."""
    row_BN, ratio_BN = torch.cat([some.row_BN, more.row_BN], 1), torch.cat([some.ratio_BN, more.ratio_BN], 1)
    value_BN = None
    if some.value_BN is not None and more.value_BN is not None:
        value_BN = torch.cat([some.value_BN, more.value_BN], 1)
    x_BNHD = torch.cat([some.x_BNHD, more.x_BNHD], 1)
    return Plans(x_BNHD, row_BN, ratio_BN, choice(row_BN, ratio_BN, value_BN), value_BN)
