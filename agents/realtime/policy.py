"""Real-time chunking: a policy that acts by a deadline, and makes its next chunk while this one is carried out.

Black et al. 2025, "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339), with a policy that has
learnt to continue the actions that are carried out meanwhile (`BCConfig.max_delay`, arXiv 2512.05964).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gentraj.constraints import Constraint

from ..episodic import finite_actions
from ..memory import ObservationBuffer
from ..policies.actor import Actor
from ..roadmap.courses import Courses, courses
from .background import MAX_RESET_WAIT_S, ONE, WARM_UP_JOBS, Background, BackgroundJob, Deadline, RealTimeAgent


@dataclass(eq=False)
class ChunkJob(BackgroundJob):
    """A chunk that is being made in the background."""

    due: int
    """The environment step from which on its actions may be carried out; before it, those of the previous chunk are."""
    obs_BO: Tensor
    """What the policy sees at the step at which it starts."""
    goal_BG: Tensor | None
    seeds: Sequence[int]
    promised_KA: Tensor
    """The actions that are carried out in its first steps, as far as they are known."""
    courses: Courses | None
    chunk_KA: Tensor = field(init=False)


class RealTimeActor(RealTimeAgent):
    """An `Agent` that carries out the chunks of a policy in one environment, and whose `act` returns within a deadline.

    A chunk that takes less than the deadline is made from the present observation, as by the `Actor`. A longer one,
    which takes L steps, is made while the chunk before it is carried out. That one goes on for the L steps: its actions
    in them are promised, and the next chunk is conditioned on them, as far as the policy has learnt to be, and is
    carried out from its action L on. Chunks start `execute` steps apart, or less where a chunk is too short to last
    until the next one is due.

    Where a chunk is late, the previous one is carried out further. After its end, and until the first chunk of an
    episode is ready, `deadline.fallback` acts. Without one, the last action is held, or, before the first, the action
    that is nearest to 0 is taken.

    `warm_up` measures how long chunks take. Without it, the policy measures its first chunks, which may be late.
    """

    def __init__(self, actor: Actor, deadline: Deadline):
        self.actor = actor
        self.policy, self.spec = actor.policy, actor.spec
        self.limits, self.ranges = actor.limits, actor.ranges
        self.max_delay = actor.policy.config.max_delay  # promised actions that a chunk is conditioned on, at most
        self.background = Background[ChunkJob](deadline, self._make, actor.device)
        self._begin(0)

    @property
    def network_calls(self) -> int:
        """Calls of the policy's networks so far."""
        return self.actor.network_calls

    def _allocate(self, batch: int) -> None:
        super()._allocate(batch)
        self.observations = ObservationBuffer(self.policy.spec, self.policy.spec.past, batch)
        self.courses = None  # no chunk of another episode, which may still be made, changes those of this one
        if self.actor.ahead is not None:
            self.courses = courses(self.actor.ahead, self.policy.execute, batch)
        self.chunk_KA = torch.zeros(1, self.policy.spec.act_dim).clamp(self.actor.low_A.cpu(), self.actor.high_A.cpu())

    def avoiding(self, obstacles: Sequence[Constraint]) -> RealTimeActor:
        """Returns an agent whose way to its goals goes round obstacles, and whose fallback is told of them. It takes
        the place of this one, which knows and counts what it does."""
        told = RealTimeActor(self.actor.avoiding(obstacles), self.background.deadline.avoiding(obstacles))
        told.background.take_over(self.background)
        return told

    def given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.actor.given(obs_BO, goal_BG)

    def timing(self) -> dict[str, Any]:
        """Counts and times since the agent was made, by names.

        "acted_by" has the number of environment steps by what the action came from, "chunks" the number of chunks by
        their delay, and "chunk_ms" the milliseconds that a chunk is expected to take.
        """
        return {"acted_by": Counter(self.background.acted), "chunks": Counter(self.background.made),
                "chunk_ms": 1000 * self.background.relative_seconds()}

    def warm_up(self, obs_BO: Tensor, goal_BG: Tensor | None) -> None:
        """Measures how long chunks from an observation (1, O) with a goal (1, G) take, and acting."""
        for _ in range(1 + 2 * WARM_UP_JOBS):
            self.reset([0])
            self.act(obs_BO, goal_BG)
            self.background.take(MAX_RESET_WAIT_S)
        self.background.forget_warm_up()
        self.reset([0])

    def _renew(self, obs_BO: Tensor, goal_BG: Tensor | None, start: float, until: float) -> None:
        self._take(until)
        if self.background.job is None:
            elapsed_s = self.background.deadline.clock() - start
            self._begin_next(self.observations.seen(obs_BO), goal_BG, elapsed_s)
            self._take(until)

    def _take(self, until: float) -> None:
        """Takes the next chunk if it is due, and ready by the time `until`."""
        job, deadline = self.background.job, self.background.deadline
        if job is None or self.step < job.due or self.background.take(until - deadline.clock()) is None:
            return
        idle = self.began is None and deadline.fallback is None
        self.began = self.step if idle else job.starts  # it has done nothing where the chunk starts
        self.chunk_KA = job.chunk_KA
        self.background.made[f"{self.step - self.began} steps"] += 1
        self.decision_B += 1

    def _carry_out(self, obs_BO: Tensor) -> Tensor | None:
        if self.began is None or self.step >= self.began + len(self.chunk_KA):
            return None
        job = self.background.job
        late = job is not None and self.step >= job.due
        self.background.acted["the previous chunk" if late else "the chunk"] += 1
        return self.chunk_KA[None, self.step - self.began]

    def _stand_by(self, obs_BO: Tensor) -> Tensor:
        self.background.acted["standing still" if self.began is None else "the last action"] += 1
        return self.chunk_KA[None, -1]

    def _begin_next(self, obs_BO: Tensor, goal_BG: Tensor | None, elapsed_s: float) -> None:
        """Begins the next chunk, from the present observation, if it is due by now or would be late otherwise.
        `elapsed_s` seconds of this step have passed, as in waiting for the chunk before it."""
        lead, age = 0, 0
        size = len(self.chunk_KA)
        if self.began is not None:
            lead = self.background.lead(elapsed_s + self.background.relative_seconds())
            age = self.step - self.began
            if age < min(self.policy.execute, size - lead):
                return
        lead = min(lead, size - 1)
        promised_KA = self.chunk_KA[age : age + min(lead, self.max_delay)]
        self.background.begin(ChunkJob(self.step, self.step + lead, obs_BO, goal_BG, self._seeds(ONE),
                                       promised_KA, self.courses))

    def _make(self, job: ChunkJob) -> None:
        goal_BG, first_BLA = job.goal_BG, None
        if job.courses is not None and goal_BG is not None:
            goal_BG = job.courses.aim(ONE, job.obs_BO, goal_BG).place_BG
        if len(job.promised_KA):
            first_BLA = job.promised_KA[None]
        act_BKA = self.actor.chunk(job.obs_BO, goal_BG, job.seeds, first_BLA)
        job.chunk_KA = finite_actions(act_BKA[0].cpu(), "the policy")
