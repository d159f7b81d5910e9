"""The units of a policy: what its networks see of observations, contexts, actions and rewards."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gentraj.data import ContextConfig, Episodes
from gentraj.data.windows import fit_contexts
from gentraj.device import constant, to_device
from gentraj.normalize import Normalizer
from gentraj.trajectory import Limits, TrajectorySpec

MAX_NORMALIZED_OBS = 10.0  # in deviations, as an entry that hardly varies in the data has a tiny deviation
CONSTANT_ACTION_SCALE = 1e-6  # of an action that never varies in the data, in units of its size where that is above 1
SCALE_ROUNDING = 1e-6  # relative, of that scale, which may have been moved to another dtype

Observations = Literal["gaussian", "raw"]
Rewards = Literal["rms", "raw", "return-range", "minus-one"]


class StateActionScales(nn.Module):
    """Normalisers of observations, actions, contexts (None without one) and rewards.

    A state s_BS is the normalised observation, clamped to `max_obs`, joined with the normalised context (a goal) if
    there is one. The observation is what the policy sees (`TrajectorySpec.seen`), so that of a policy with a history it
    is the last observations, and the last actions if it sees any.
    """

    def __init__(self, obs: Normalizer, act: Normalizer, context: Normalizer | None, reward: Normalizer,
                 max_obs: float = MAX_NORMALIZED_OBS, spec: TrajectorySpec | None = None):
        """`spec` says what the policy remembers; by default it sees the present observation alone."""
        super().__init__()
        self.act_dim = len(act.shift_D)
        self.context_dim = 0 if context is None else len(context.shift_D)
        self.spec = spec or TrajectorySpec(len(obs.shift_D), self.act_dim, 1)
        self.obs_dim = self.spec.seen_dim
        self.state_dim = self.obs_dim + self.context_dim
        self.obs = obs
        self.act = act
        self.context = context
        self.reward = reward
        self.max_obs = max_obs
        self.goal_dims: tuple[int, ...] = ()
        """The entries of an observation that a goal is made of, if the context is the goal relative to where the
        observation is."""
        self.mean_reward = 0.0
        """The mean over the steps of the data, in the policy's units; 0 if the data are unknown."""
        self.end_rate = 0.0
        """The fraction of the steps of the data that terminate."""

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig, observations: Observations = "gaussian",
            rewards: Rewards = "rms", spec: TrajectorySpec | None = None) -> StateActionScales:
        """Fits the normalisers to these episodes; `observations` and `rewards` are those of `PolicyConfig`, and `spec`
        says what the policy remembers.

        The statistics of rewards and terminations use real episodes only, as synthetic ones of a world model are short.
        Rewards of goals in hindsight, in environment steps, stay as they are.
        Raises `DataError` for data that lack a context.
        """
        context = fit_contexts(episodes, contexts)
        real = episodes.real()
        shift, size = (0.0, 1.0) if contexts.goals else reward_scale(real, rewards)
        scales = cls.blank(episodes.obs_dim, episodes.act_dim, len(context.shift_D) if context else 0, observations,
                           spec)
        scales.act = action_scale(episodes.act)
        if observations == "gaussian":
            scales.obs = seen_scale(scales.spec, Normalizer.fit("gaussian", [episodes.obs]), scales.act)
        scales.context = context
        scales.reward = Normalizer(torch.full((1,), shift), torch.full((1,), size))
        if contexts.goals:
            scales.mean_reward = -0.5  # values begin in the middle of theirs, from -1 / (1 - discount) to 0
        else:
            scales.mean_reward = (float(real.reward.mean(dtype=np.float64)) - shift) / size
            scales.end_rate = float(real.terminated.mean())
        return scales

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, context_dim: int, observations: Observations = "gaussian",
              spec: TrajectorySpec | None = None) -> StateActionScales:
        """Identity normalisers, to load saved ones into."""
        identity = Normalizer.identity
        context = identity(context_dim) if context_dim else None
        return cls(identity(spec.seen_dim if spec else obs_dim), identity(act_dim), context, identity(1),
                   MAX_NORMALIZED_OBS if observations == "gaussian" else torch.inf, spec)

    def initial_value(self, discount: float) -> float:
        """The discounted return of constant mean rewards, with terminations at their mean rate: where critics start."""
        return self.mean_reward / (1 - discount * (1 - self.end_rate))

    def state(self, obs_BO: Tensor, context_BC: Tensor | None) -> Tensor:
        """(B, S) normalised states. Raises ValueError for observations of another width, and if a context is missing,
        or given to a policy without one."""
        if obs_BO.shape[-1] != self.obs_dim:
            raise ValueError(f"observations of shape {tuple(obs_BO.shape)} were given to a policy that sees "
                             f"{self.obs_dim} numbers; give it what policy.spec.seen makes of observations and actions")
        if (self.context is None) != (context_BC is None):
            trained, given = ("with", "none") if context_BC is None else ("without", "one")
            raise ValueError(f"a policy trained {trained} a goal was given {given}; train it on data of this "
                             "environment")
        obs_BO = to_device(obs_BO, self.obs.shift_D.device)
        obs = self.obs.normalize(obs_BO).clamp(-self.max_obs, self.max_obs)
        if self.context is None or context_BC is None:
            return obs
        context_BC = to_device(context_BC, obs.device)
        if self.goal_dims:
            goal_G = constant(self.goal_dims, obs.device, torch.long)
            here_BG = obs_BO.clamp(*self.bounds())[:, goal_G]
            context_BC = context_BC - here_BG + self.context.shift_D
        return torch.cat([obs, self.context.normalize(context_BC)], -1)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The bounds (O,) to which `state` clamps observations, in environment units."""
        reach_O = self.max_obs * self.obs.scale_D
        return self.obs.shift_D - reach_O, self.obs.shift_D + reach_O

    @property
    def varies_A(self) -> Tensor:
        """(A,) false for the actions that never vary in the data, which the policy leaves as they are."""
        return varies(self.act)

    def limits(self, low_A: Tensor, high_A: Tensor) -> Limits:
        """The limits of an agent of this policy in an action space: where the policy clamps observations, and the
        bounds of the actions in the data, if they are narrower than those of the action space. An action that never
        varies is not clipped."""
        least_A = (self.act.shift_D - self.act.scale_D).maximum(low_A.to(self.act.shift_D.device))
        most_A = (self.act.shift_D + self.act.scale_D).minimum(high_A.to(self.act.shift_D.device))
        seen = (bound[: self.spec.obs_dim] for bound in self.bounds())
        bounds = (torch.where(self.varies_A, least_A, -torch.inf), torch.where(self.varies_A, most_A, torch.inf), *seen)
        return Limits(*(bound.cpu().numpy() for bound in bounds))


def seen_scale(spec: TrajectorySpec, obs: Normalizer, act: Normalizer) -> Normalizer:
    """The normaliser of what a policy sees, `TrajectorySpec.seen`. An action that never varies has the scale 1."""
    act_scale_A = torch.where(varies(act), act.scale_D, 1)
    return Normalizer(torch.cat([obs.shift_D.repeat(spec.history), act.shift_D.repeat(spec.past_actions)]),
                      torch.cat([obs.scale_D.repeat(spec.history), act_scale_A.repeat(spec.past_actions)]))


def action_scale(act_SA: np.ndarray) -> Normalizer:
    """The normaliser that maps the limits of actions to -1 and 1. It leaves an action that never varies where it is,
    whatever a policy samples, as no values were learned of others."""
    limits = Normalizer.fit("limits", [act_SA])
    varies_A = torch.from_numpy(act_SA.min(0) < act_SA.max(0))
    return Normalizer(limits.shift_D, torch.where(varies_A, limits.scale_D, constant_scale(limits.shift_D)))


def varies(act: Normalizer) -> Tensor:
    """(A,) false for the actions that never vary in the data of this normaliser."""
    return (act.scale_D / constant_scale(act.shift_D) - 1).abs() > SCALE_ROUNDING


def constant_scale(shift_A: Tensor) -> Tensor:
    """(A,) the scales of actions that never vary."""
    return CONSTANT_ACTION_SCALE * shift_A.abs().clamp(min=1)


def reward_scale(episodes: Episodes, rewards: Rewards) -> tuple[float, float]:
    """The shift and the positive scale of the rewards of these episodes, as `PolicyConfig.rewards` says."""
    if rewards == "rms":
        return 0.0, float(np.sqrt(np.square(episodes.reward, dtype=np.float64).mean())) or 1.0
    if rewards == "return-range":
        return 0.0, float(np.ptp(episodes.returns)) / 1000 or 1.0
    if rewards == "minus-one":
        return 1.0, 1.0
    return 0.0, 1.0
