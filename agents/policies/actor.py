"""The actor: an agent that carries out the actions of a policy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gentraj.constraints import Constraint
from gentraj.device import to_device
from gentraj.networks.embedding import padded
from gentraj.randomness import RowNoise, Seeds
from gentraj.ranges import DataRanges
from gentraj.trajectory import DEFAULT_OPTIONS, Limits, SamplingOptions, TrajectorySpec

from ..episodic import EpisodicAgent, aimed_at, finite_actions, observed
from ..memory import ObservationBuffer
from ..roadmap.courses import courses
from ..roadmap.far_goals import FarGoals
from .policy import Policy


class Actor(EpisodicAgent):
    """The `Agent` of a policy: it samples a chunk of actions, carries out the first of them, and samples again."""

    def __init__(self, policy: Policy, low_A: np.ndarray, high_A: np.ndarray,
                 options: SamplingOptions = DEFAULT_OPTIONS, ahead: FarGoals | None = None,
                 ranges: DataRanges | None = None):
        """`ahead` gives the goals to act towards, as on a roadmap; by default they are those that `act` is given."""
        self.policy = policy
        self.ahead = ahead
        self.ranges = ranges
        self.options = options
        self.low_A = torch.as_tensor(low_A).float().to(policy.device)
        self.high_A = torch.as_tensor(high_A).float().to(policy.device)
        self.decisions = 0
        self.told = False  # that goals are ignored
        self._begin(0)

    @property
    def spec(self) -> TrajectorySpec:
        return self.policy.spec

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.policy.device

    @property
    def network_calls(self) -> int:
        """Calls of the policy's model so far, or decisions where it does not count them."""
        calls = self.policy.network_calls
        if calls is None:
            return self.decisions
        return calls

    @property
    def limits(self) -> Limits:
        return self.policy.scales.limits(self.low_A, self.high_A)

    def _allocate(self, batch: int) -> None:
        self.observations = ObservationBuffer(self.spec, self.spec.past, batch)
        self.age_B = torch.full((batch,), self.policy.execute)
        self.queue_BEA = torch.zeros(batch, self.policy.execute, self.policy.spec.act_dim)
        self.courses = None
        if self.ahead is not None:
            self.courses = courses(self.ahead, self.policy.execute, batch)

    def _forget(self, mask_B: Tensor) -> None:
        self.age_B[mask_B] = self.policy.execute
        self.observations.steps_B[mask_B] = 0
        if self.courses is not None:
            self.courses.forget(mask_B)

    def avoiding(self, obstacles: Sequence[Constraint]) -> Actor:
        """Returns an actor whose way to its goals goes round obstacles; this one if it has no roadmap."""
        if self.ahead is None:
            return self
        ahead = self.ahead.around(obstacles)
        return type(self)(self.policy, self.low_A.cpu().numpy(), self.high_A.cpu().numpy(), self.options, ahead,
                          self.ranges)

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """(B, A) actions inside the action space, on the device of the observations. A policy that was trained without
        goals ignores `goal_BG`.

        Raises ValueError for observations or goals of another shape, and for NaN and infinity in them or in the
        actions.
        """
        return self._acted(*self.given(obs_BO, goal_BG))

    @torch.no_grad()
    def _acted(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        if self.queue_BEA.device != obs_BO.device:
            with torch.inference_mode(False):
                self.queue_BEA = self.queue_BEA.to(obs_BO.device)
        due_B = self.age_B >= self.policy.execute
        if due_B.any():
            which = slice(None) if due_B.all() else due_B  # a mask would have to be waited for
            obs = self.observations.seen(obs_BO)[which]
            goal = None
            if goal_BG is not None and self.policy.scales.context_dim:
                goal = padded(self._aim(due_B, obs, goal_BG[which]), self.multiple)
            noise = RowNoise(self._seeds(due_B)).padded(-len(obs) % self.multiple)
            act_BEA = self.decide(padded(obs, self.multiple), goal, noise)[: len(obs)].to(self.queue_BEA)
            self.queue_BEA[which] = finite_actions(act_BEA, "the policy")
            self.age_B.masked_fill_(due_B, 0)
            self.decision_B += due_B
        act_BA = self.queue_BEA[torch.arange(len(obs_BO), device=obs_BO.device), to_device(self.age_B, obs_BO.device)]
        self.age_B += 1
        self.observations.add(obs_BO, act_BA)
        return act_BA

    def given(self, obs_BO: Tensor, goal_BG: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The observations, and the goals if the policy was trained with them, checked and in float32."""
        obs_BO = observed(obs_BO, self.policy.spec.obs_dim, self.ranges)
        width = self.policy.scales.context_dim
        if not width:
            if goal_BG is not None and not self.told:
                self.told = True
                warnings.warn("a goal was given to a policy that was trained without goals, and is ignored; train it "
                              "on data with goals, or leave the goal out", stacklevel=4)
            return obs_BO, None
        if goal_BG is None:
            raise ValueError("a policy trained with a goal was given none; give `act` the goals (B, G)")
        return obs_BO, aimed_at(goal_BG, width, self.ranges)

    def _aim(self, which_B: Tensor, obs_NO: Tensor, goal_NG: Tensor) -> Tensor:
        """The goals to act towards now in these N environments, on the way to those that `act` was given."""
        if self.courses is None:
            return goal_NG
        return self.courses.aim(which_B, obs_NO, goal_NG).place_BG

    def decide(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Seeds) -> Tensor:
        """(B, E, A) actions inside the action space, which are carried out before the next decision.

        This is a function of its arguments alone, as `gentraj export` needs it. The observations are what the policy
        sees, `spec.seen`.
        """
        return self.chunk(obs_BO, goal_BG, seeds)[:, : self.policy.execute]

    def chunk(self, obs_BO: Tensor, goal_BG: Tensor | None, seeds: Seeds,
              first_BLA: Tensor | None = None) -> Tensor:
        """(B, K, A) whole chunks of actions inside the action space, given the first L if there are any."""
        policy, scales = self.policy, self.policy.scales
        state_BS = scales.state(obs_BO, goal_BG)
        if first_BLA is None:
            act_BKA = policy.sample_actions(state_BS, seeds, self.options)
        else:
            first_BLA = scales.act.normalize(first_BLA.to(state_BS)) * scales.varies_A
            act_BKA = policy.sample_after(first_BLA, state_BS, seeds, self.options)
        self.decisions += 1
        act_BKA = scales.act.unnormalize(act_BKA)
        return act_BKA.clamp(self.low_A.to(act_BKA.device), self.high_A.to(act_BKA.device))
