"""What every policy shares: how it normalises, what a transition is, and the windows that its generator models.

Inside a policy everything is normalised. It knows a state s_BS, the observation and, where there is one, the context
(a goal) beside it, and chunks of K actions; its generator, if it has one, models windows x_BKD whose observation
is the state, always known and the same in each row, and whose actions are the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.data import ContextConfig, Episodes
from gentraj.data.context import fit_contexts
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.families import MODELS, Model, ModelConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.models.gaussian import Gaussian, GaussianConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import unfold_each
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    Condition,
    SamplingOptions,
    TrajectoryModel,
    TrajectorySpec,
)

FAR = 10.0  # deviations: an entry that hardly moved in the data says no more than that
KNOWN = ConditionMix(start=0, goal=0, observations=1)  # all of a state, nothing of the actions
ModelT = TypeVar("ModelT", bound=Model)


class RewardStatistics(NamedTuple):
    """Means over the steps of the data: the reward, in units of its root mean square, and how often a step ends it."""

    reward: float
    end_rate: float

    def initial_value(self, discount: float) -> float:
        """Of such rewards until such an end."""
        return self.reward / (1 - discount * (1 - self.end_rate))


UNKNOWN = RewardStatistics(0.0, 0.0)


@dataclass(frozen=True)
class Scales:
    """How a policy normalises what it is given. Rewards are divided by their root mean square, not shifted."""

    obs: Normalizer
    act: Normalizer
    context: Normalizer | None
    reward: Normalizer
    reward_statistics: RewardStatistics = UNKNOWN
    """What values start from."""

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig) -> Scales:
        """Rewards and ends are of the real data, not of synthetic ones of a world model, whose episodes are short.
        Raises `DataError` for data that lack a context."""
        context, real = fit_contexts(episodes, contexts), episodes.real()
        size = float(np.sqrt(np.square(real.reward, dtype=np.float64).mean()))
        reward = Normalizer(torch.zeros(1), torch.full((1,), size or 1.0))
        return cls(Normalizer.fit("gaussian", [episodes.obs]), Normalizer.fit("limits", [episodes.act]), context,
                   reward, RewardStatistics(float(real.reward.mean(dtype=np.float64)) / (size or 1.0),
                                            float(real.terminated.mean())))

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, context_dim: int) -> Scales:
        """With room to load saved ones into."""
        identity = Normalizer.identity
        return cls(identity(obs_dim), identity(act_dim), identity(context_dim) if context_dim else None, identity(1))


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What the settings of every policy say; those of each policy are derived from these."""

    chunk: int = 1
    """Actions that are decided together."""
    execute: int = 1
    """Of these, the actions that are carried out before the next are decided."""
    batch_size: int = 256

    def unused(self) -> dict[str, str]:
        return {"execute": "one action is decided at a time (chunk)"} if self.chunk == 1 else {}

    def __post_init__(self) -> None:
        require(self, chunk=(1, 1e4), execute=(1, self.chunk), batch_size=(1, 1e9))


@dataclass(frozen=True)
class Transition:
    """(s, a, r, s') of each window of a batch, normalised: a is a chunk of K actions, s' the state that is reached.

    That state may lie further on than the last of the actions (`n_step`): what the data did in between counts as if it
    followed.
    """

    state_BS: Tensor
    chunk_BX: Tensor
    """The K actions side by side, 0 after the end of the episode."""
    real_BK: Tensor
    """Which of them were taken before the episode ended."""
    reward_B: Tensor
    """Discounted sum of the rewards on the way to the next state."""
    next_BS: Tensor
    discount_B: Tensor
    """Of what comes after; 0 where the episode ended for good, not where a time limit truncated it."""
    whole_B: Tensor
    """Where the chunk is whole, or the episode ended for good: its missing actions are then of no consequence."""
    episode_B: Tensor
    """As in `Batch`."""
    weight_B: Tensor | None = None
    """Of mean 1: how much each counts for a policy, which learns of real data, not of what a world model imagined;
    critics learn of all. None is alike."""

    def weights(self) -> Tensor:
        """(B,), or a one for all."""
        return self.reward_B.new_ones(1) if self.weight_B is None else self.weight_B


class Policy(nn.Module, Generic[ModelT]):
    """`Trainable`. A subclass has `optimizers`, `update` and `sample_actions`, and as a rule a `model` that draws
    actions."""

    model: ModelT
    state_mask: Tensor
    """(D,) true for the entries of a window's row that are the state."""

    def __init__(self, obs_dim: int, act_dim: int, config: PolicyConfig, scales: Scales, n_step: int = 1):
        """`n_step` are the steps after which a transition ends, at least those of a chunk."""
        super().__init__()
        self.obs, self.act_scale, self.context, self.reward = scales.obs, scales.act, scales.context, scales.reward
        self.reward_statistics = scales.reward_statistics
        self.chunk, self.execute, self.batch_size = config.chunk, config.execute, config.batch_size
        self.spec = TrajectorySpec(obs_dim, act_dim, max(config.chunk, n_step) + 1)
        self.state_dim = obs_dim + (0 if scales.context is None else len(scales.context.shift_D))
        self.window_spec = TrajectorySpec(self.state_dim, act_dim, config.chunk)  # what a generator models
        self.register_buffer("state_mask", torch.arange(self.window_spec.dim) < self.state_dim, persistent=False)

    def optimizers(self) -> dict[str, Optimizer]:
        """Those of its own networks by their names, beside those of its model, which picks them out by name."""
        raise NotImplementedError

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) normalised actions. `options` say how the generator samples; a temperature is the policy's own.

        Raises ValueError for options that its generator cannot follow.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.obs.shift_D.device

    @property
    def network_calls(self) -> int:
        """Calls of its generator so far."""
        return self.model.network_calls

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How it draws actions, in words."""
        return self.model.sampling(options)

    @overload
    def generator(self, config: DiffusionConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Diffusion: ...
    @overload
    def generator(self, config: GaussianConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Gaussian: ...
    @overload
    def generator(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Model: ...
    def generator(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Model:
        """A model of windows x_BKD whose state is known, conditioned on so many numbers beside."""
        identity, context = (Normalizer.identity(self.window_spec.dim), Normalizer.identity(context_dim) if context_dim
                             else None)
        return MODELS.made_of(config)(self.window_spec, config, identity, context, mix=KNOWN,
                                      context_dropout=context_dropout)

    def state(self, obs_BO: Tensor, context_BC: Tensor | None) -> Tensor:
        """(B, S). Raises ValueError where a context is missing or there should be none."""
        if (context_BC is None) != (self.context is None):
            raise ValueError(f"a policy trained with{'out' if self.context is None else ''} a goal was given "
                             f"{'none' if context_BC is None else 'one'}; train it on data of this environment")
        obs = self.obs.normalize(obs_BO).clamp(-FAR, FAR)
        if self.context is None or context_BC is None:
            return obs
        return torch.cat([obs, self.context.normalize(context_BC)], -1)

    def transition(self, batch: Batch, discount: float) -> Transition:
        """Raises ValueError for a batch that is not of episodes."""
        if batch.reward_BH is None or batch.terminal_BH is None or batch.episode_B is None:
            raise ValueError("a policy learns of rewards and ends of episodes, which this batch lacks; take it of "
                             "Windows")
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BH = batch.mask_BHD[..., 0]
        last_B = real_BH.sum(1) - 1  # the row of the state that is reached, and the steps to it
        b, h_H = torch.arange(len(last_B), device=last_B.device), torch.arange(real_BH.shape[1], device=last_B.device)
        ended_B = batch.terminal_BH[b, last_B]
        power_H = discount ** h_H.to(batch.reward_BH)
        reward_BH = self.reward.normalize(batch.reward_BH[:, :-1, None])[..., 0]
        real_BK = real_BH[:, 1 : self.chunk + 1]
        act_BKA = self.act_scale.normalize(act_BHA[:, : self.chunk]) * real_BK[..., None]
        reward_B, discount_B = (reward_BH * power_H[:-1]).sum(1), power_H[last_B] * ~ended_B
        return Transition(
            state_BS=self.state(obs_BHO[:, 0], batch.context_BC),
            chunk_BX=act_BKA.flatten(1),
            real_BK=real_BK,
            reward_B=reward_B,
            next_BS=self.state(obs_BHO[b, last_B], batch.context_BC),
            discount_B=discount_B,
            whole_B=real_BK.all(1) | (discount_B == 0),
            episode_B=batch.episode_B,
            weight_B=None if batch.synthetic_B is None else mean_one((~batch.synthetic_B).to(reward_B)))

    def windows(self, t: Transition, weight_B: Tensor | None = None) -> Batch:
        """What the generator learns: the chunk that followed each state."""
        x_BKD = self.join(t.state_BS, t.chunk_BX.unflatten(1, (self.chunk, -1)))
        if t.weight_B is not None:
            weight_B = t.weight_B if weight_B is None else mean_one(t.weight_B * weight_B)
        return Batch(x_BKD, t.real_BK[..., None] | self.state_mask, weight_B=weight_B)

    def join(self, state_BS: Tensor, act_BKA: Tensor) -> Tensor:
        """(B, K, D) windows of the generator."""
        return torch.cat([state_BS[:, None].expand(-1, self.chunk, -1), act_BKA], -1)

    def condition(self, state_BS: Tensor) -> Condition:
        """What the generator is conditioned on of a state."""
        x = self.join(state_BS, state_BS.new_zeros(len(state_BS), self.chunk, self.spec.act_dim))
        return Condition(self.window_spec, x, self.state_mask.expand_as(x))

    def states(self, x: Tensor) -> Tensor:
        """The generator's windows (..., K, D) -> states (..., S)."""
        return x[..., 0, : self.state_dim]

    def actions(self, x: Tensor) -> Tensor:
        """The generator's windows (..., K, D) -> actions (..., K, A) inside the data's bounds."""
        return x[..., self.state_dim :].clamp(-1, 1)

    def candidates(self, model: TrajectoryModel, state_BS: Tensor, number: int, seeds: Sequence[int],
                   options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, N, K, A) that a generator draws for each state."""
        return self.actions(model.sample(self.condition(state_BS), number, seed=unfold_each(number, seeds),
                                         options=options))


def mean_one(weight_B: Tensor) -> Tensor:
    """Over their mean; all zeros stay so."""
    return weight_B / weight_B.mean().clamp(min=1e-6)
