"""What agents share that act by a deadline: they make what they need next in the background, while they act.

While the present plan or chunk of actions is carried out, the next one is made for the step at which it is due
(real-time chunking, Black et al. 2025, arXiv 2506.07339). How early it is begun follows from how long the last ones
took. Where it is late, a fallback may act.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from gentraj.constraints import Constraint
from gentraj.trajectory import Agent

from ..episodic import EpisodicAgent

EXPECTED_QUANTILE = 0.9  # of the last jobs' relative durations: what the next one is expected to take
ACTING_MARGIN = 1.25  # time that is reserved for acting, in units of the longest that acting took
MAX_RESET_WAIT_S = 10.0  # for a job of the episode before, which no longer matters
WARM_UP_JOBS = 3  # that are timed in advance
ONE = torch.ones(1, dtype=torch.bool)  # the one environment, as a mask


@dataclass(frozen=True)
class Deadline:
    """How long an agent may take to act. Raises ValueError for a time that is not positive.

    Each agent needs one of its own: an executor does one job at a time, and the fallback acts in one environment.
    """

    seconds: float
    """Time from a call of `act` to its return, which is also the time between two calls."""
    fallback: Agent | None = None
    """An agent that acts while there is no plan to follow, as until the first plan of an episode is ready. It starts
    anew, as at the beginning of an episode, whenever it takes over. Without it, a planner stands still, and a policy
    holds its last action."""
    clock: Callable[[], float] = time.perf_counter
    """Returns the time in seconds, which never goes back."""
    executor: Executor | None = None
    """Makes plans or chunks in the background, one after another; None is a thread of the agent's own, which is started
    when it is first needed."""

    def __post_init__(self) -> None:
        if not 1e-6 <= self.seconds <= 1e6:
            raise ValueError(f"Deadline.seconds is {self.seconds}; at least 1e-6 and at most 1e6 is expected")

    def avoiding(self, obstacles: Sequence[Constraint]) -> Deadline:
        """The same with a fallback that is told of obstacles."""
        if self.fallback is None:
            return self
        return replace(self, fallback=self.fallback.avoiding(obstacles))


@dataclass(eq=False)
class BackgroundJob:
    """A plan or a chunk of actions that is made in the background."""

    starts: int
    """The environment step at which it starts."""
    cost: float = field(default=1.0, kw_only=True)
    """What it costs, in proportion to others."""
    future: Future[None] = field(init=False)
    seconds: float = field(init=False)
    """How long it took. What was made is there when the future is done."""


J = TypeVar("J", bound=BackgroundJob)


class Background(Generic[J]):
    """Makes one thing at a time in the background, estimates how long the next one takes, and counts who acted.

    Jobs have costs, to which their durations are in proportion, so that the estimate is one number for all of them: a
    quantile of the last relative durations. The first one counts only until the second, as the first call of a network
    takes longer.

    On a GPU jobs have a stream of their own, so that acting, which reads its actions, does not wait for them. A job
    sees what was done on the stream of decisions before it began. It ends by a copy to the CPU, which waits for its
    stream, so that what it was given and what it made may be used and freed then.

    A copy, also one in another process, has a thread and a stream of its own, and begins anew what is being made.
    """

    def __init__(self, deadline: Deadline, make: Callable[[J], object], device: torch.device):
        """`make` does a job, on this device, and ends by a copy of its result to the CPU."""
        self.deadline = deadline
        self.make, self.device = make, device
        self.executor = deadline.executor
        self.stream: torch.cuda.Stream | None = None
        self.job: J | None = None
        """The job that is being done, if there is one."""
        self.relative = deque[float](maxlen=32)  # seconds that the last jobs took, divided by their costs
        self.cold = True  # whether only the first job was measured so far
        self.acting = deque[float](maxlen=256)  # seconds that `act` takes apart from waiting
        self.acted, self.made = Counter[str](), Counter[str]()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"executor": self.deadline.executor, "stream": None, "job": None}

    def take_over(self, other: Background[Any]) -> None:
        """Works, measures and counts on from where `other` is."""
        self.executor, self.stream = other.executor, other.stream
        self.relative, self.acting = other.relative, other.acting
        self.cold = other.cold
        self.acted, self.made = other.acted, other.made

    def begin(self, job: J) -> None:
        """Begins a job."""
        if self.executor is None:
            self.executor = ThreadPoolExecutor(1, "deadline")
        if self.device.type == "cuda":
            self.stream = self.stream or torch.cuda.Stream(self.device)
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        job.future = self.executor.submit(self._do, job)
        self.job = job

    def wait(self, seconds: float) -> None:
        """Lets `seconds` pass, or less if there is nothing to wait for."""
        if self.job is not None:
            with suppress(Exception):  # an error is raised where the job is taken
                self.job.future.result(max(seconds, 0))

    def take(self, seconds: float) -> J | None:
        """The job if it is done within `seconds`; there is none then. Raises any error of its own."""
        self.wait(seconds)
        job = self.job
        if job is None or not job.future.done():
            return None
        self.job = None
        job.future.result()
        if self.cold and self.relative:
            self.relative.clear()
            self.cold = False
        self.relative.append(job.seconds / job.cost)
        return job

    def drop(self, wait_s: float = 0.0) -> None:
        """Forgets the job, after `wait_s` seconds at most if the executor has begun it.

        Where it has not, no later job has to wait for it.
        """
        if self.job is not None and not self.job.future.cancel():
            self.wait(wait_s)
        self.job = None

    def relative_seconds(self) -> float:
        """The seconds that a job of cost 1 is expected to take; 0 before the first one."""
        if not self.relative:
            return 0.0
        by_size = sorted(self.relative)
        return by_size[math.ceil(EXPECTED_QUANTILE * (len(by_size) - 1))]

    def lead(self, expected_s: float) -> int:
        """The number of steps by which a job of so many seconds has to be begun before it is due."""
        return max(math.ceil((expected_s + self.reserved) / self.deadline.seconds) - 1, 0)

    @property
    def reserved(self) -> float:
        """The seconds of each period that are reserved for acting; half of it at most, as acting may once take long."""
        return min(ACTING_MARGIN * max(self.acting, default=0.0), self.deadline.seconds / 2)

    def forget_warm_up(self) -> None:
        """Keeps what was measured before the first episode, but no counts, nor the first times of acting."""
        self.cold = False
        while len(self.acting) > WARM_UP_JOBS:
            self.acting.popleft()
        self.acted.clear()
        self.made.clear()

    @torch.no_grad()
    def _do(self, job: J) -> None:
        start = self.deadline.clock()
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            self.make(job)
        job.seconds = self.deadline.clock() - start


class RealTimeAgent(EpisodicAgent):
    """Base class of agents that act in one environment, and whose `act` returns within a deadline.

    A subclass makes what it carries out in its `background`. It says what it does with an observation, in the order of
    the abstract methods; all that it remembers of an episode it makes room for in `_allocate`.
    """

    background: Background[Any]

    @abstractmethod
    def given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The observations and goals that it plans by, checked. Raises ValueError for others."""

    @abstractmethod
    def _renew(self, obs_BO: Tensor, goal_BG: Tensor | None, start: float, until: float) -> None:
        """Takes what was made if it is due, and ready by the time `until`. The step began at the time `start`."""

    @abstractmethod
    def _carry_out(self, obs_BO: Tensor) -> Tensor | None:
        """(1, A) the action by what was made, and None where there is nothing to carry out."""

    @abstractmethod
    def _stand_by(self, obs_BO: Tensor) -> Tensor:
        """(1, A) the action where there is nothing to carry out, and no fallback."""

    def _plan_ahead(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Begins what is due in a later step, after the action of this one is known."""

    @torch.no_grad()
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(1, A) actions inside the action space, within the deadline.

        Raises ValueError for more than one environment, and any error of what is made in the background, perhaps in a
        later step.
        """
        deadline, clock = self.background.deadline, self.background.deadline.clock
        start = clock()
        own_BO, own_BG = self.given(obs_BO, goal_BG)
        own_BO = own_BO.clone()  # a caller may change its own while something is made of them
        if own_BG is not None:
            own_BG = own_BG.clone()
        if len(own_BO) != 1:
            raise ValueError(f"{len(own_BO)} observations were given to an agent with a deadline, which acts in one "
                             "environment; give one, or leave the deadline out")
        until = start + deadline.seconds - self.background.reserved
        self._renew(own_BO, own_BG, start, until)
        resumed = max(start, min(clock(), until))  # a thread that wakes up late needs more time to act
        act_BA = self._carry_out(own_BO)
        if act_BA is None and deadline.fallback is not None:
            if self.fell_back != self.step - 1:  # the rest of a chunk or of a plan is for the steps after that one
                deadline.fallback.reset(self._seeds(ONE))
            self.fell_back = self.step
            self.background.acted["the fallback"] += 1
            act_BA = deadline.fallback.act(obs_BO, goal_BG).cpu()
        if act_BA is None:
            act_BA = self._stand_by(own_BO)
        self.observations.add(own_BO, act_BA)
        self._plan_ahead(own_BO, own_BG)
        self.step += 1
        self.background.acting.append(clock() - resumed)
        return act_BA

    def rest(self, seconds: float) -> None:
        """Lets `seconds` pass, in which the agent plans ahead; returns as soon as it has nothing to plan."""
        self.background.wait(seconds)

    def _allocate(self, batch: int) -> None:
        self.background.drop(MAX_RESET_WAIT_S)  # the first job of this episode would have to wait for it
        self.step = 0
        self.began: int | None = None  # the step at which what is carried out starts, if there is something
        self.fell_back: int | None = None  # the step at which the fallback last acted

    def _forget(self, mask_B: Tensor) -> None:
        if mask_B.any():
            with torch.inference_mode(False):
                self._allocate(len(mask_B))


class SimulatedTime(Executor):
    """A clock that goes on only where someone works or waits, and an executor beside whom nobody has to wait.

    As the `clock` and the `executor` of a `Deadline`, it simulates delays exactly: what a job is to take is added to
    `now` while it is done, and what is left of a period after each `act`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        """The present, in seconds."""
        self.free = 0.0  # when the executor has done what it was given so far

    def __call__(self) -> float:
        return self.now

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        now, self.now = self.now, max(self.now, self.free)
        future = _Simulated(self)
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # raised by `result`
            future.set_exception(error)
        future.at = self.free = self.now
        self.now = now
        return future


class _Simulated(Future[Any]):
    """A future whose work is done at the time `at`."""

    def __init__(self, time: SimulatedTime):
        super().__init__()
        self.time, self.at = time, 0.0

    def done(self) -> bool:
        return self.at <= self.time.now

    def result(self, timeout: float | None = None) -> Any:
        if timeout is not None and self.at > self.time.now + timeout:
            self.time.now += timeout
            raise TimeoutError
        self.time.now = max(self.time.now, self.at)
        return super().result()
