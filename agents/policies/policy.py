"""What all policies share: normalisation, transitions, and the windows that the generative model of actions learns.

Inside a policy everything is normalised. A state s_BS is the observation, joined with the context (a goal) if there is
one, and actions come in chunks of K. The model, if the policy has one, is of windows x_BKD of K timesteps, in
which the observation is the state, always known and the same in each timestep, and the actions are the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, cast, overload

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
from gentraj.models.sample_batch import sampling_of
from gentraj.normalize import Normalizer
from gentraj.randomness import unfold_each
from gentraj.training.parallel import mean_over_processes
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    Condition,
    Limits,
    SamplingOptions,
    TrajectoryModel,
    TrajectorySpec,
    calls_of,
)

FAR = 10.0  # bound on normalised observations, as an entry that hardly varies in the data has a tiny deviation
STILL = 1e-6  # scale of an action that never varies in the data, in units of its size where that is above 1
ROUNDING = 1e-6  # relative, of that scale, which may have been moved to another dtype
STATE_KNOWN = ConditionMix(start=0, goal=0, observations=1)  # a model is conditioned on the state, not on actions
ModelT = TypeVar("ModelT", bound=Model)


class RewardStatistics(NamedTuple):
    """Means over the steps of the data: the reward, in units of its root mean square, and the rate of terminations."""

    reward: float
    end_rate: float

    def initial_value(self, discount: float) -> float:
        """The discounted return of constant mean rewards, with terminations at their mean rate."""
        return self.reward / (1 - discount * (1 - self.end_rate))


UNKNOWN = RewardStatistics(0.0, 0.0)


Observations = Literal["gaussian", "raw"]
Rewards = Literal["rms", "raw", "return-range", "minus-one"]


@dataclass(frozen=True)
class Scales:
    """The normalisers of a policy."""

    obs: Normalizer
    """The normaliser of observations."""
    act: Normalizer
    """The normaliser of actions."""
    context: Normalizer | None
    """The normaliser of contexts; None without one."""
    reward: Normalizer
    """The normaliser of rewards."""
    reward_statistics: RewardStatistics = UNKNOWN
    """Statistics from which the initial values of critics are computed."""

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig, observations: Observations = "gaussian",
            rewards: Rewards = "rms") -> Scales:
        """Fits the normalisers to these episodes; `observations` and `rewards` are those of `PolicyConfig`.

        The statistics of rewards and terminations use real episodes only, as synthetic ones of a world model are short.
        Raises `DataError` for data that lack a context.
        """
        context, real = fit_contexts(episodes, contexts), episodes.real()
        shift, size = reward_scale(real, rewards)
        reward = Normalizer(torch.full((1,), shift), torch.full((1,), size))
        obs = (Normalizer.identity(episodes.obs_dim) if observations == "raw"
               else Normalizer.fit("gaussian", [episodes.obs]))
        return cls(obs, action_scale(episodes.act), context, reward,
                   RewardStatistics((float(real.reward.mean(dtype=np.float64)) - shift) / size,
                                    float(real.terminated.mean())))

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, context_dim: int) -> Scales:
        """Identity normalisers, to load saved ones into."""
        identity = Normalizer.identity
        return cls(identity(obs_dim), identity(act_dim), identity(context_dim) if context_dim else None, identity(1))


def action_scale(act_SA: np.ndarray) -> Normalizer:
    """The normaliser that maps the limits of actions to -1 and 1. It leaves an action that never varies where it is,
    whatever a policy samples, as no values were learned of others."""
    limits = Normalizer.fit("limits", [act_SA])
    varies_A = torch.from_numpy(act_SA.min(0) < act_SA.max(0))
    return Normalizer(limits.shift_D, torch.where(varies_A, limits.scale_D, still(limits.shift_D)))


def still(shift_A: Tensor) -> Tensor:
    """(A,) the scales of actions that never vary."""
    return STILL * shift_A.abs().clamp(min=1)


def reward_scale(episodes: Episodes, rewards: Rewards) -> tuple[float, float]:
    """The shift and the positive scale of the rewards of these episodes, as `PolicyConfig.rewards` says."""
    if rewards == "rms":
        return 0.0, float(np.sqrt(np.square(episodes.reward, dtype=np.float64).mean())) or 1.0
    if rewards == "return-range":
        return 0.0, float(np.ptp(episodes.returns)) / 1000 or 1.0
    return (1.0 if rewards == "minus-one" else 0.0), 1.0


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Base class of the settings of a policy. Raises ValueError for a setting outside its range."""

    chunk: int = 1
    """Number of actions in a chunk, which are sampled together."""
    execute: int = 1
    """Number of actions of a chunk that are carried out before the next chunk is sampled."""
    batch_size: int = 256
    """Number of transitions in a batch."""
    observations: Observations = "gaussian"
    """Observations as the networks see them: with mean 0 and standard deviation 1 in the data, or as they are."""
    rewards: Rewards = "rms"
    """How rewards are scaled for the values: divided by their root mean square (rms); not at all (raw); times 1000 /
    (largest - smallest return of an episode), as in IQL's locomotion (return-range); or minus 1, as in IQL's AntMaze
    (minus-one)."""

    model: ClassVar[ModelConfig | None] = None
    """The settings of the generator of actions: a field of a policy that has one."""
    critic: ClassVar[Any | None] = None
    """The settings of the value function. A policy that has one can be fine-tuned in its environment."""
    ACTING: ClassVar[tuple[str, ...]] = ("execute",)
    """The settings by which the policy acts. Its training does not depend on them, so they may change after it."""

    def __post_init__(self) -> None:
        require(self, chunk=(1, 1e4), execute=(1, self.chunk), batch_size=(1, 1e9))


@dataclass(frozen=True)
class Transition:
    """n-step transitions (s, a, r, s') of a batch of windows, normalised; a is a chunk of K actions.

    With an `n_step` above K, the state s' lies beyond the chunk, and the rewards of the data's actions in between count
    as if they followed from a.
    """

    state_BS: Tensor
    """The state: the observation, and the context if there is one."""
    chunk_BX: Tensor
    """The K actions, concatenated; 0 after the end of the episode."""
    real_BK: Tensor
    """True for the actions that were taken before the episode ended."""
    reward_B: Tensor
    """Discounted sum of the rewards up to the next state."""
    next_BS: Tensor
    """The next state."""
    discount_B: Tensor
    """Discount of the value of the next state; 0 where the episode terminated, but not where it was truncated."""
    whole_B: Tensor
    """True where the chunk is whole, or the episode terminated, so that the missing actions have no effect."""
    episode_B: Tensor
    """Index of the episode, as in `Batch`."""
    weight_B: Tensor | None = None
    """Weights of mean 1 in the loss of the policy, 0 for synthetic transitions of a world model, from which only
    critics learn. None gives all transitions the same weight."""

    def weights(self) -> Tensor:
        """The weights (B,), or (1,) with a 1 for all transitions."""
        return self.reward_B.new_ones(1) if self.weight_B is None else self.weight_B


class Policy(nn.Module, Generic[ModelT]):
    """Base class of policies, which are `Trainable`.

    A subclass implements `optimizers`, `update` and `sample_actions`, and usually has a `model`, the generative model
    of actions.
    """

    model: ModelT
    state_mask: Tensor
    """(D,) true for the entries of the state in each timestep of the model's windows."""

    def __init__(self, obs_dim: int, act_dim: int, config: PolicyConfig, scales: Scales, n_step: int = 1):
        """`n_step` is the number of environment steps in a transition; it is raised to the size of a chunk."""
        super().__init__()
        self.obs, self.act_scale, self.context, self.reward = scales.obs, scales.act, scales.context, scales.reward
        self.reward_statistics = scales.reward_statistics
        self.far = FAR if config.observations == "gaussian" else torch.inf
        self.chunk, self.execute, self.batch_size = config.chunk, config.execute, config.batch_size
        self.spec = TrajectorySpec(obs_dim, act_dim, max(config.chunk, n_step) + 1)
        self.state_dim = obs_dim + (0 if scales.context is None else len(scales.context.shift_D))
        self.window_spec = TrajectorySpec(self.state_dim, act_dim, config.chunk)  # the model's windows
        self.register_buffer("state_mask", torch.arange(self.window_spec.dim) < self.state_dim, persistent=False)

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of the policy's own networks and of its model, by name."""
        raise NotImplementedError

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def acting(self, config: PolicyConfig) -> Self:
        """A policy with the same networks that acts by `config`, which may differ in the settings of `ACTING` only."""
        other = copy(self)
        vars(other).update(config=config, execute=config.execute)
        return other

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) normalised actions in [-1, 1], with one seed for each state.

        `options` say how the model samples; their temperature multiplies the policy's own, if it has one. Raises
        ValueError for options that the model does not have.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.obs.shift_D.device

    @property
    def trajectory_model(self) -> ModelT | None:
        """The generator, which is `model`; None for a policy without one."""
        return cast(ModelT | None, self._modules.get("model"))

    @property
    def network_calls(self) -> int:
        """Calls of the model's network so far; 0 for a policy without a model."""
        return calls_of([self.trajectory_model])

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description in words of how actions are sampled; the class of a policy without a model."""
        return type(self).__name__ if (model := self.trajectory_model) is None else sampling_of(model, options)

    @overload
    def build_model(self, config: DiffusionConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Diffusion: ...
    @overload
    def build_model(self, config: GaussianConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Gaussian: ...
    @overload
    def build_model(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Model: ...
    def build_model(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> Model:
        """Builds a model of windows x_BKD, conditioned on the state and on a context of `context_dim` numbers."""
        identity = Normalizer.identity(self.window_spec.dim)
        context = Normalizer.identity(context_dim) if context_dim else None
        return MODELS.made_of(config)(self.window_spec, config, identity, context, conditioning=STATE_KNOWN,
                                      context_dropout=context_dropout)

    def state(self, obs_BO: Tensor, context_BC: Tensor | None) -> Tensor:
        """(B, S) normalised states. Raises ValueError for observations of another width, and if a context is missing,
        or given to a policy without one."""
        if obs_BO.shape[-1:] != self.obs.shift_D.shape:
            raise ValueError(f"observations of shape {tuple(obs_BO.shape)} were given to a policy that was trained on "
                             f"observations of width {len(self.obs.shift_D)}; give it those")
        if (context_BC is None) != (self.context is None):
            raise ValueError(f"a policy trained with{'out' if self.context is None else ''} a goal was given "
                             f"{'none' if context_BC is None else 'one'}; train it on data of this environment")
        obs = self.obs.normalize(obs_BO).clamp(-self.far, self.far)
        if self.context is None or context_BC is None:
            return obs
        return torch.cat([obs, self.context.normalize(context_BC)], -1)

    @property
    def varies_A(self) -> Tensor:
        """(A,) false for the actions that never vary in the data, which the policy leaves as they are."""
        return (self.act_scale.scale_D / still(self.act_scale.shift_D) - 1).abs() > ROUNDING

    def limits(self, low_A: Tensor, high_A: Tensor) -> Limits:
        """The limits of an agent of this policy in an action space: where the policy clamps observations, and the
        bounds of the actions in the data, if they are narrower than those of the action space. An action that never
        varies is not clipped."""
        shift_A, scale_A, varies_A = (x.cpu() for x in (self.act_scale.shift_D, self.act_scale.scale_D, self.varies_A))
        least_A = torch.where(varies_A, (shift_A - scale_A).maximum(low_A.cpu()), -torch.inf)
        most_A = torch.where(varies_A, (shift_A + scale_A).minimum(high_A.cpu()), torch.inf)
        obs_low_O, obs_high_O = (bound_O.cpu().numpy() for bound_O in self.bounds())
        return Limits(least_A.numpy(), most_A.numpy(), obs_low_O, obs_high_O)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The bounds (O,) that `state` sets to observations, in environment units."""
        reach_O = self.far * self.obs.scale_D
        return self.obs.shift_D - reach_O, self.obs.shift_D + reach_O

    def transition(self, batch: Batch, discount: float) -> Transition:
        """Turns a batch of windows into transitions; `discount` is per environment step.

        Raises ValueError for a batch without rewards, terminations and episodes, and for windows of another layout than
        the policy's, in which the n-step returns would be others.
        """
        self.spec.check_windows(batch.x_BHD.shape)
        if batch.reward_BH is None or batch.terminal_BH is None or batch.episode_B is None:
            raise ValueError("a policy learns from rewards and terminations, which this batch lacks; take a batch of "
                             "Windows")
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BH = batch.mask_BHD[..., 0]
        last_B = real_BH.sum(1) - 1  # the timestep of the next state, and the steps to it
        b, h_H = torch.arange(len(last_B), device=last_B.device), torch.arange(real_BH.shape[1], device=last_B.device)
        ended_B = batch.terminal_BH[b, last_B]
        power_H = discount ** h_H.to(batch.reward_BH)
        reward_BH = self.reward.normalize(batch.reward_BH[:, :-1, None])[..., 0] * real_BH[:, 1:]  # none in padding
        real_BK = real_BH[:, 1 : self.chunk + 1]
        act_BKA = self.act_scale.normalize(act_BHA[:, : self.chunk]) * (real_BK[..., None] & self.varies_A)
        reward_B, discount_B = (reward_BH * power_H[:-1]).sum(1), power_H[last_B] * ~ended_B
        return Transition(
            state_BS=self.state(obs_BHO[:, 0], batch.context_BC),
            chunk_BX=act_BKA.flatten(1),
            real_BK=real_BK,
            reward_B=reward_B,
            next_BS=self.state(obs_BHO[b, last_B], batch.context_BC),
            discount_B=discount_B,
            whole_B=real_BK.all(1) | ended_B,
            episode_B=batch.episode_B,
            weight_B=None if batch.synthetic_B is None else mean_one((~batch.synthetic_B).to(reward_B)))

    def windows(self, t: Transition, weight_B: Tensor | None = None) -> Batch:
        """The windows that the model learns: each state with the chunk that followed it.

        `weight_B` are weights in the model's loss, in addition to those of the transitions.
        """
        x_BKD = self.join(t.state_BS, t.chunk_BX.unflatten(1, (self.chunk, -1)))
        if t.weight_B is not None:
            weight_B = t.weight_B if weight_B is None else mean_one(t.weight_B * weight_B)
        return Batch(x_BKD, t.real_BK[..., None] | self.state_mask, weight_B=weight_B)

    def join(self, state_BS: Tensor, act_BKA: Tensor) -> Tensor:
        """Joins states and actions (B, K, A) into the model's windows (B, K, D)."""
        return torch.cat([state_BS[:, None].expand(-1, self.chunk, -1), act_BKA], -1)

    def condition(self, state_BS: Tensor, *, finite: bool = False) -> Condition:
        """The model's condition: the states are known, the actions are not. States that are `finite` are not checked,
        as those of the training data."""
        x = self.join(state_BS, state_BS.new_zeros(len(state_BS), self.chunk, self.spec.act_dim))
        return Condition(self.window_spec, x, self.state_mask.expand_as(x), finite=finite)

    def states(self, x: Tensor) -> Tensor:
        """Takes the states (..., S) from the model's windows (..., K, D)."""
        return x[..., 0, : self.state_dim]

    def actions(self, x: Tensor) -> Tensor:
        """Takes the actions (..., K, A) from the model's windows (..., K, D), clamped to the data's bounds."""
        return x[..., self.state_dim :].clamp(-1, 1)

    def candidates(self, model: TrajectoryModel, state_BS: Tensor, number: int, seeds: Sequence[int],
                   options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, N, K, A) chunks of actions: `number` samples of a model for each state."""
        return self.actions(model.sample(self.condition(state_BS), number, seed=unfold_each(number, seeds),
                                         options=options))


def mean_one(weight_B: Tensor) -> Tensor:
    """Divides weights by their mean; weights that are all 0 stay 0."""
    return weight_B / mean_over_processes(weight_B.mean()).clamp(min=1e-6)
