"""Agents around other agents: a fast student with its teacher as fallback, and exploration by noise on actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gentraj.constraints import Constraint
from gentraj.models.sampling import without_gradient
from gentraj.randomness import RowNoise, fold
from gentraj.trajectory import Agent, TrajectorySpec, calls_of

from .episodic import EpisodicAgent


@runtime_checkable
class HasConfidence(Protocol):
    """An agent that tells how confident it is of what it does, such as a `StudentActor`."""

    def confidence(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B,) the confidence in these states, from 0 to 1. It changes nothing."""
        ...


class ConfidenceSwitch(EpisodicAgent):
    """An `Agent` that acts by a fast student where it is confident, and by its teacher where it is not.

    Where the student's confidence is below `min_confidence`, in [0, 1], the teacher acts for `steps` environment steps.
    It starts anew, as at the beginning of an episode, from wherever the student has led. If the student is still unsure
    afterwards, the teacher goes on with what it does; else the student starts anew. With a `min_confidence` of 0 the
    teacher never acts. What an episode's agents sample is a function of its seed and of the step at which they take
    over.

    SafeDAgger (Zhang & Cho 2017, "Query-Efficient Imitation Learning for End-to-End Simulated Driving") lets the
    teacher act where a second network predicts that the student is wrong; here, the student's own mixture says so.
    """

    by_teacher_B: Tensor

    def __init__(self, student: Agent, teacher: Agent, min_confidence: float = 0.5, steps: int = 12):
        """Raises ValueError for a student without a `confidence`, for a `min_confidence` outside [0, 1] and for less
        than one step."""
        if not isinstance(student, HasConfidence):
            raise ValueError(f"{type(student).__name__} does not tell where it is unsure, so that a teacher could act "
                             "there; give a student, as `gentraj distill --method decision` trains it")
        if not 0 <= min_confidence <= 1 or steps < 1:
            raise ValueError(f"min_confidence is {min_confidence} and steps {steps}; give a probability from 0 to 1 "
                             "and at least 1 step")
        self.student = student
        self.teacher = teacher
        self.ranges = student.ranges
        self.min_confidence = min_confidence
        self.steps = steps
        self._begin(0)

    @property
    def spec(self) -> TrajectorySpec | None:
        return self.student.spec

    @property
    def network_calls(self) -> int:
        return calls_of([self.student, self.teacher])

    def avoiding(self, obstacles: Sequence[Constraint]) -> ConfidenceSwitch:
        """Returns the same of a student and a teacher that are told of obstacles."""
        student, teacher = (agent.avoiding(obstacles) for agent in (self.student, self.teacher))
        return ConfidenceSwitch(student, teacher, self.min_confidence, self.steps)

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        super()._reset(seeds_B, mask_B)
        self.student.reset(self.seed_B.tolist(), mask_B)

    def _allocate(self, batch: int) -> None:
        self.by_teacher_B = torch.zeros(batch, dtype=torch.bool)  # whether the last action was the teacher's
        self.left_B = torch.zeros(batch, dtype=torch.long)  # steps that the teacher goes on acting for

    def _forget(self, mask_B: Tensor) -> None:
        self.by_teacher_B[mask_B] = False
        self.left_B[mask_B] = 0

    def pad_batches(self, padded: bool = True) -> None:
        self.student.pad_batches(padded)
        self.teacher.pad_batches(padded)

    def took(self, act_BA: Tensor) -> None:
        self.student.took(act_BA)
        self.teacher.took(act_BA)

    @without_gradient
    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) the student's actions, or the teacher's; `by_teacher_B` says whose they are."""
        free_B = self.left_B == 0
        if free_B.any():
            unsure_B = free_B & (self.student.confidence(obs_BO, goal_BG).cpu() < self.min_confidence)
            self.left_B[unsure_B] = self.steps
            self._hand_over(self.left_B > 0)
        self.left_B -= self.by_teacher_B.long()
        self.decision_B += 1
        remembers = self.spec is not None and self.spec.past > 0
        if self.by_teacher_B.all() and not remembers:
            return self.teacher.act(obs_BO, goal_BG)
        act_BA = self.student.act(obs_BO, goal_BG)
        if not self.by_teacher_B.any():
            return act_BA
        act_BA = torch.where(self.by_teacher_B[:, None], self.teacher.act(obs_BO, goal_BG).to(act_BA.device), act_BA)
        self.student.took(act_BA)
        return act_BA

    def _hand_over(self, by_teacher_B: Tensor) -> None:
        """Starts the agent anew that takes over, in each environment in which one does."""
        for agent, takes_over_B in ((self.teacher, by_teacher_B & ~self.by_teacher_B),
                                    (self.student, ~by_teacher_B & self.by_teacher_B)):
            if takes_over_B.any():
                agent.reset(self._seeds(torch.ones_like(takes_over_B)), takes_over_B)
        self.by_teacher_B = by_teacher_B


NOISE_STREAM = 0x6E6F697365  # keeps the noise independent of what the agent itself samples from an episode's seed


class NoisyAgent(Agent):
    """An `Agent` that adds Gaussian noise to the actions of another. An episode's seed determines its noise."""

    def __init__(self, agent: Agent, low_A: np.ndarray, high_A: np.ndarray, noise: float):
        """`noise` is the standard deviation of the noise, in units of half the range of each action.

        Raises ValueError for an action space without bounds.
        """
        self.agent = agent
        self.ranges = agent.ranges
        self.low_A = torch.as_tensor(low_A).float()
        self.high_A = torch.as_tensor(high_A).float()
        self.size_A = noise * (self.high_A - self.low_A) / 2
        if not self.size_A.isfinite().all():
            raise ValueError("exploration adds noise in units of the range of actions, and this action space has no "
                             "bounds; give it some")
        self.noise = RowNoise([])

    @property
    def spec(self) -> TrajectorySpec | None:
        return self.agent.spec

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        self.agent.reset(seeds_B, mask_B)
        fresh = RowNoise([fold(seed, NOISE_STREAM) for seed in seeds_B])
        if len(self.noise) == len(fresh):
            kept = zip(mask_B.tolist(), fresh.generators, self.noise.generators, strict=True)
            fresh.generators = [new if masked else old for masked, new, old in kept]
        self.noise = fresh

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) the agent's actions with noise, clamped to the action space."""
        act_BA = self.agent.act(obs_BO, goal_BG).cpu() + self.size_A * self.noise.normal(len(self.size_A))
        act_BA = act_BA.clamp(self.low_A, self.high_A)
        self.agent.took(act_BA)
        return act_BA

    def pad_batches(self, padded: bool = True) -> None:
        self.agent.pad_batches(padded)

    def took(self, act_BA: Tensor) -> None:
        self.agent.took(act_BA)
