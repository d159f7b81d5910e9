"""The units of a policy: what its networks see of observations, contexts, actions and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gentraj.data import ContextConfig, Episodes
from gentraj.data.context import fit_contexts
from gentraj.normalize import Normalizer
from gentraj.trajectory import Limits

MAX_NORMALIZED_OBS = 10.0  # in deviations, as an entry that hardly varies in the data has a tiny deviation
CONSTANT_ACTION_SCALE = 1e-6  # of an action that never varies in the data, in units of its size where that is above 1
SCALE_ROUNDING = 1e-6  # relative, of that scale, which may have been moved to another dtype

Observations = Literal["gaussian", "raw"]
Rewards = Literal["rms", "raw", "return-range", "minus-one"]


class RewardStatistics(NamedTuple):
    """Means over the steps of the data: the reward, in the policy's units, and the rate of terminations."""

    reward: float
    end_rate: float

    def initial_value(self, discount: float) -> float:
        """The discounted return of constant mean rewards, with terminations at their mean rate."""
        return self.reward / (1 - discount * (1 - self.end_rate))


UNKNOWN_REWARDS = RewardStatistics(0.0, 0.0)


class StateActionScales(nn.Module):
    """Normalisers of observations, actions, contexts (None without one) and rewards.

    A state s_BS is the normalised observation, clamped to `max_obs`, joined with the normalised context (a goal) if
    there is one. With `goal_dims`, the entries of an observation that a goal is made of, the context is the goal
    relative to where the observation is. `reward_statistics` are those from which critics start.
    """

    def __init__(self, obs: Normalizer, act: Normalizer, context: Normalizer | None, reward: Normalizer,
                 reward_statistics: RewardStatistics = UNKNOWN_REWARDS, max_obs: float = MAX_NORMALIZED_OBS,
                 goal_dims: Sequence[int] = ()):
        super().__init__()
        self.obs_dim = len(obs.shift_D)
        self.act_dim = len(act.shift_D)
        self.context_dim = 0 if context is None else len(context.shift_D)
        self.state_dim = self.obs_dim + self.context_dim
        self.obs = obs
        self.act = act
        self.context = context
        self.reward = reward
        self.reward_statistics = reward_statistics
        self.max_obs = max_obs
        self.goal_dims = tuple(goal_dims)

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig, observations: Observations = "gaussian",
            rewards: Rewards = "rms") -> StateActionScales:
        """Fits the normalisers to these episodes; `observations` and `rewards` are those of `PolicyConfig`.

        The statistics of rewards and terminations use real episodes only, as synthetic ones of a world model are short.
        Raises `DataError` for data that lack a context.
        """
        context = fit_contexts(episodes, contexts)
        real = episodes.real()
        shift, size = reward_scale(real, rewards)
        statistics = RewardStatistics((float(real.reward.mean(dtype=np.float64)) - shift) / size,
                                      float(real.terminated.mean()))
        scales = cls.blank(episodes.obs_dim, episodes.act_dim, 0, observations)
        if observations == "gaussian":
            scales.obs = Normalizer.fit("gaussian", [episodes.obs])
        return cls(scales.obs, action_scale(episodes.act), context,
                   Normalizer(torch.full((1,), shift), torch.full((1,), size)), statistics, scales.max_obs)

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, context_dim: int,
              observations: Observations = "gaussian") -> StateActionScales:
        """Identity normalisers, to load saved ones into."""
        identity = Normalizer.identity
        context = identity(context_dim) if context_dim else None
        return cls(identity(obs_dim), identity(act_dim), context, identity(1),
                   max_obs=MAX_NORMALIZED_OBS if observations == "gaussian" else torch.inf)

    def relative_to(self, goal_dims: Sequence[int]) -> StateActionScales:
        """The same with other `goal_dims`."""
        return StateActionScales(self.obs, self.act, self.context, self.reward, self.reward_statistics, self.max_obs,
                                 goal_dims)


    def state(self, obs_BO: Tensor, context_BC: Tensor | None) -> Tensor:
        """(B, S) normalised states. Raises ValueError for observations of another width, and if a context is missing,
        or given to a policy without one."""
        if obs_BO.shape[-1] != self.obs_dim:
            raise ValueError(f"observations of shape {tuple(obs_BO.shape)} were given to a policy that was trained on "
                             f"observations of width {self.obs_dim}; give it those")
        if self.context is None and context_BC is not None:
            raise ValueError("a policy trained without a goal was given one; train it on data of this environment")
        if self.context is not None and context_BC is None:
            raise ValueError("a policy trained with a goal was given none; train it on data of this environment")
        obs_BO = obs_BO.to(self.obs.shift_D.device)
        obs = self.obs.normalize(obs_BO).clamp(-self.max_obs, self.max_obs)
        if self.context is None or context_BC is None:
            return obs
        context_BC = context_BC.to(obs.device)
        if self.goal_dims:
            here_BG = obs_BO.clamp(*self.bounds())[:, list(self.goal_dims)]
            context_BC = context_BC - here_BG + self.context.shift_D
        return torch.cat([obs, self.context.normalize(context_BC)], -1)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The bounds (O,) to which `state` clamps observations, in environment units."""
        reach_O = self.max_obs * self.obs.scale_D
        return self.obs.shift_D - reach_O, self.obs.shift_D + reach_O

    @property
    def varies_A(self) -> Tensor:
        """(A,) false for the actions that never vary in the data, which the policy leaves as they are."""
        return (self.act.scale_D / constant_scale(self.act.shift_D) - 1).abs() > SCALE_ROUNDING

    def limits(self, low_A: Tensor, high_A: Tensor) -> Limits:
        """The limits of an agent of this policy in an action space: where the policy clamps observations, and the
        bounds of the actions in the data, if they are narrower than those of the action space. An action that never
        varies is not clipped."""
        shift_A = self.act.shift_D.cpu()
        scale_A = self.act.scale_D.cpu()
        varies_A = self.varies_A.cpu()
        least_A = torch.where(varies_A, (shift_A - scale_A).maximum(low_A.cpu()), -torch.inf)
        most_A = torch.where(varies_A, (shift_A + scale_A).minimum(high_A.cpu()), torch.inf)
        obs_low_O, obs_high_O = self.bounds()
        return Limits(least_A.numpy(), most_A.numpy(), obs_low_O.cpu().numpy(), obs_high_O.cpu().numpy())


def action_scale(act_SA: np.ndarray) -> Normalizer:
    """The normaliser that maps the limits of actions to -1 and 1. It leaves an action that never varies where it is,
    whatever a policy samples, as no values were learned of others."""
    limits = Normalizer.fit("limits", [act_SA])
    varies_A = torch.from_numpy(act_SA.min(0) < act_SA.max(0))
    return Normalizer(limits.shift_D, torch.where(varies_A, limits.scale_D, constant_scale(limits.shift_D)))


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
