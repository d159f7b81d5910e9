"""What policies share: the transitions they learn from, the model of actions that most have, and the base classes."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from einops import repeat
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Registry, differences, settings, to_json
from gentraj.diffusion import LatentDiffusion
from gentraj.families import MODELS, Model, ModelConfig, family
from gentraj.models.conditioning import ConditionMix
from gentraj.models.sampling import Guidance, sampling_of
from gentraj.normalize import Normalizer
from gentraj.randomness import Seeds, as_noise
from gentraj.training.step import TrainingStep
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    Condition,
    SamplingOptions,
    TrajectorySpec,
)

from .scales import Observations, Rewards, StateActionScales

P = TypeVar("P", bound="PolicyConfig")

STATE_KNOWN = ConditionMix(start=0, goal=0, observations=1)  # a model is conditioned on the state, not on actions


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
    weight_B: Tensor
    """Weights of mean 1 in the loss of the policy, 0 for synthetic transitions of a world model, from which only
    critics learn."""
    actor_BS: Tensor
    """The state with a goal that was drawn for the actor; the state itself without goals in hindsight."""

    def for_actor(self) -> Transition:
        """The transitions with the actor's goals in their states. Rewards and next states keep those of the values."""
        return replace(self, state_BS=self.actor_BS)

    def average(self, x_EB: Tensor) -> Tensor:
        """Mean over the transitions whose chunk is whole or reached a termination; a truncated chunk is no action."""
        return (x_EB * self.whole_B).sum(-1).mean() / self.whole_B.sum().clamp(min=1)

    def real_entries(self) -> Tensor:
        """(B, K * A) true for the entries of the chunk that were taken before the episode ended."""
        return repeat(self.real_BK, "b k -> b (k a)", a=self.chunk_BX.shape[1] // self.real_BK.shape[1])


def mean_one(weight_B: Tensor) -> Tensor:
    """Divides weights by their mean; weights that are all 0 stay 0."""
    return weight_B / weight_B.mean().clamp(min=1e-6)


def join(state_BS: Tensor, act_BKA: Tensor) -> Tensor:
    """Windows (B, K, D) of K timesteps: the state, the same in each timestep, and an action of the chunk (B, K, A)."""
    return torch.cat([state_BS[:, None].expand(-1, act_BKA.shape[1], -1), act_BKA], -1)


class ActionModel(nn.Module):
    """p(a | s, c): a generative model of chunks of actions, given the state and a context of `context_dim` numbers.

    `model` is the `TrajectoryModel` of the windows of `join`, in whose `spec` the state takes the place of the
    observation. Where the state is wider, the rest of it, a goal, is the context; else actions are sampled with a
    context of ones. Up to `max_delay` first actions may be known. Everything is normalised.
    """

    state_mask: Tensor
    """(D,) true for the entries of the state in each timestep, which are always known."""

    def __init__(self, spec: TrajectorySpec, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0,
                 max_delay: int = 0):
        super().__init__()
        self.spec = spec
        self.context_dim = context_dim
        context = Normalizer.identity(context_dim) if context_dim else None
        self.model: Model = MODELS.made_of(config)(
            spec, config, Normalizer.identity(spec.dim), context,
            conditioning=replace(STATE_KNOWN, first_actions=max_delay), context_dropout=context_dropout)
        self.register_buffer("state_mask", torch.arange(spec.dim) < spec.obs_dim, persistent=False)

    @property
    def noise_dim(self) -> int:
        """How many standard normal numbers a chunk of actions is made from."""
        spec = self.model.prior.spec if isinstance(self.model, LatentDiffusion) else self.spec
        return spec.horizon * spec.act_dim

    def optimizers(self) -> dict[str, Optimizer]:
        return self.model.optimizers()

    def actions(self, x: Tensor) -> Tensor:
        """Takes the actions (..., K, A) from windows (..., K, D), clamped to the data's bounds."""
        return x[..., self.spec.obs_dim :].clamp(-1, 1)

    def update(self, t: Transition, step: TrainingStep, weight_B: Tensor | None = None,
               context_BC: Tensor | None = None, **guide: Any) -> dict[str, Tensor]:
        """One optimiser step on the model's loss of the data's actions: of each state with the chunk that followed it,
        as far as the episode goes.

        `weight_B` are weights in addition to those of the transitions. `guide` are further arguments of the model's
        `update`, such as a guide whose score it maximises. Returns metrics.
        """
        state_BS, goal_BC = self.parts(t.state_BS)
        if context_BC is None:
            context_BC = goal_BC
        x_BKD = join(state_BS, t.chunk_BX.unflatten(1, (self.spec.horizon, -1)))
        if weight_B is None:
            weight_B = t.weight_B
        else:
            weight_B = t.weight_B * weight_B
        batch = Batch(x_BKD, t.real_BK[..., None] | self.state_mask, context_BC, weight_B=weight_B)
        return self.model.update(step.on(batch), **guide)

    def parts(self, state_BS: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known in each timestep, and the rest of the state, None if there is none."""
        width = self.spec.obs_dim
        if state_BS.shape[1] == width:
            return state_BS, None
        return state_BS[:, :width], state_BS[:, width:]

    def condition(self, state_BS: Tensor) -> Condition:
        """The states are known, the actions are not. Nothing is checked: losses are, and the actions of an agent."""
        state_BS, context_BC = self.parts(state_BS)
        x = join(state_BS, state_BS.new_zeros(len(state_BS), self.spec.horizon, self.spec.act_dim))
        if self.context_dim and context_BC is None:
            context_BC = state_BS.new_ones(len(state_BS), self.context_dim)
        return Condition(self.spec, x, self.state_mask.expand_as(x), context_BC, checked=False)

    def sample(self, state_BS: Tensor, seeds: Seeds, options: SamplingOptions = DEFAULT_OPTIONS,
               number: int = 1, guide: Guidance = None, first_BLA: Tensor | None = None) -> Tensor:
        """(B, N, K, A) chunks of actions in [-1, 1], `number` for each state, with a seed or noise for each. Their
        first actions are `first_BLA`, if they are given."""
        if number > 1:
            seeds = as_noise(seeds, len(state_BS), "states").several(number)
        known = self.condition(state_BS)
        if first_BLA is not None:
            known = known.with_first_acts(first_BLA)
        return self.actions(self.model.sample(known, number, guide=guide, seed=seeds, options=options))


@settings
class PolicyConfig:
    """Base class of the settings of a policy. Raises ValueError for a setting outside its range."""

    _: KW_ONLY
    chunk: PositiveInt = 1
    """Number of actions in a chunk, which are sampled together."""
    execute: PositiveInt = 1
    """Number of actions of a chunk that are carried out before the next chunk is sampled."""
    batch_size: PositiveInt = 256
    """Number of transitions in a batch."""
    observations: Observations = "gaussian"
    """Observations as the networks see them: with mean 0 and standard deviation 1 in the data, or as they are."""
    rewards: Rewards = "rms"
    """How rewards are scaled for the values: divided by their root mean square (rms); not at all (raw); times 1000 /
    (largest - smallest return of an episode), as in IQL's locomotion (return-range); or minus 1, as in IQL's AntMaze
    (minus-one)."""

    model: ClassVar[ModelConfig | None] = None
    """The settings of the generative model of actions: a field of a policy that has one."""
    critic: ClassVar[Any | None] = None
    """The settings of the value function; None for a policy that imitates."""
    candidates: ClassVar[int] = 1
    """The number of samples that a decision is chosen from: a field of a policy that chooses."""
    max_delay: ClassVar[int] = 0
    """The largest number of first actions of a chunk that may be known: a field of a policy that learns chunks so."""
    ACTING: ClassVar[tuple[str, ...]] = ("execute",)
    """The settings by which the policy acts. Its training does not depend on them, so they may change after it."""

    def __post_init__(self) -> None:
        if self.execute > self.chunk:
            raise ValueError(f"{type(self).__name__}.execute is {self.execute}; a number up to chunk, {self.chunk}, is "
                             "expected")

    def from_one_noise(self) -> Self:
        """The settings by which an action follows from its first noise alone: none is added or chosen among later."""
        changed: dict[str, object] = {}
        if self.model is not None:
            changed["model"] = self.model.from_one_noise()
        if self.candidates > 1:
            changed["candidates"] = 1
        return replace(self, **changed)

    @property
    def summary(self) -> str:
        """What the policy is in a few words, such as "BC, flow"."""
        name = type(self).__name__.removesuffix("Config")
        if self.model is None:
            return name
        return f"{name}, {family(self.model)}"


class Policy(nn.Module, Generic[P]):
    """Base class of policies, which are `Trainable`.

    A subclass implements `update` and `sample_actions`, and adds its own networks to `optimizers`. Most have an
    `ActionModel`, the generative model of actions, as `model`. Inside a policy everything is normalised, by `scales`;
    actions come in chunks of K.
    """

    model: ActionModel

    def __init__(self, config: P, scales: StateActionScales, n_step: int = 1):
        """`n_step` is the number of environment steps in a transition; it is raised to the size of a chunk."""
        super().__init__()
        self.config = config
        self.scales = scales
        self.chunk = config.chunk
        self.batch_size = config.batch_size
        self.spec = replace(scales.spec, horizon=max(config.chunk, n_step) + 1)
        self.state_dim = scales.state_dim
        self.window_spec = TrajectorySpec(scales.state_dim, scales.act_dim, config.chunk)  # of a model of actions

    @property
    def execute(self) -> int:
        """The number of actions of a chunk that are carried out before the next chunk is sampled."""
        return self.config.execute

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of the policy's own networks and of its model, by name; here those of the model."""
        if self.action_model is None:
            return {}
        return self.action_model.optimizers()

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        """One training step; returns metrics, scalars. Raises `NonFinite` before an optimiser step on a loss or a
        gradient that is not finite."""
        raise NotImplementedError

    def sample_actions(self, state_BS: Tensor, seeds: Seeds,
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) normalised actions in [-1, 1], with a seed or noise for each state.

        `options` say how the model samples; their temperature multiplies the policy's own, if it has one. Raises
        ValueError for options that the model does not have.
        """
        raise NotImplementedError

    def sample_after(self, first_BLA: Tensor, state_BS: Tensor, seeds: Seeds,
                     options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) what `sample_actions` returns, given the first L normalised actions of each chunk, which are
        carried out while it is made. L is `max_delay` of the settings at most."""
        raise NotImplementedError

    def generated(self, state_BS: Tensor, seeds: Seeds, options: SamplingOptions) -> Tensor:
        """(B, K, A) chunks of actions as they are generated: the candidates that the policy chooses from, or what it
        was trained on, not always what it does. Raises ValueError for a policy without a generator."""
        return action_model_of(self).sample(state_BS, seeds, options)[:, 0]

    def with_config(self, config: P) -> Self:
        """A policy with the same networks and other settings to act by.

        Raises ValueError for settings that differ in more than those of `ACTING`.
        """
        check_acting(self.config, config)
        other = copy.copy(self)
        for registered in ("_modules", "_parameters", "_buffers"):  # what is put into one is not put into the other
            vars(other)[registered] = dict(vars(self)[registered])
        other.config = config
        return other

    def build_model(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> ActionModel:
        """Builds a model of actions given the state and a context of `context_dim` numbers."""
        return ActionModel(self.window_spec, config, context_dim, context_dropout, self.config.max_delay)

    def transition(self, batch: Batch, discount: float) -> Transition:
        """The transitions that the policy sees in a batch of windows; `discount` is per environment step.

        Raises ValueError for a batch without rewards, terminations and episodes, and for windows of another layout than
        the policy's, in which the n-step returns would be others.
        """
        self.spec.check_windows(batch.x_BHD.shape)
        if batch.reward_BH is None or batch.terminal_BH is None or batch.episode_B is None:
            raise ValueError("a policy learns from rewards and terminations, which this batch lacks; take a batch of "
                             "Windows")
        scales = self.scales
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BH = batch.mask_BHD[..., 0]
        last_B = real_BH.sum(1) - 1  # the timestep of the next state, and the steps to it
        ended_B = batch.terminal_BH.any(1)
        power_H = discount ** torch.arange(real_BH.shape[1], device=last_B.device).to(batch.reward_BH)
        reward_BH = scales.reward.normalize(batch.reward_BH[:, :-1, None])[..., 0] * real_BH[:, 1:]  # none in padding
        reward_B = (reward_BH * power_H[:-1]).sum(1)
        real_BK = real_BH[:, 1 : self.chunk + 1]
        act_BKA = scales.act.normalize(act_BHA[:, : self.chunk]) * (real_BK[..., None] & scales.varies_A)
        weight_B = torch.ones_like(reward_B)
        if batch.synthetic_B is not None:
            weight_B = mean_one((~batch.synthetic_B).to(reward_B))
        past_BPD = batch.past_BPD
        obs_BW = self.spec.seen(obs_BHO[:, 0], past_BPD)
        if past_BPD is not None:  # the steps before the next state
            t_BP = last_B[:, None] + torch.arange(self.spec.past, device=last_B.device)
            past_BPD = torch.cat([past_BPD, batch.x_BHD], 1).take_along_dim(t_BP[..., None], 1)
        next_BO = obs_BHO[torch.arange(len(last_B), device=last_B.device), last_B]
        goal_BG = batch.context_BC
        actor_BS = state_BS = scales.state(obs_BW, goal_BG)
        if batch.goal_BG is not None:
            goal_BG = batch.goal_BG
            state_BS = scales.state(obs_BW, goal_BG)
        return Transition(
            state_BS=state_BS,
            chunk_BX=act_BKA.flatten(1),
            real_BK=real_BK,
            reward_B=reward_B,
            next_BS=scales.state(self.spec.seen(next_BO, past_BPD), goal_BG),
            discount_B=power_H[last_B] * ~ended_B,
            whole_B=real_BK.all(1) | ended_B,
            episode_B=batch.episode_B,
            weight_B=weight_B,
            actor_BS=actor_BS)

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.scales.obs.shift_D.device

    @property
    def action_model(self) -> ActionModel | None:
        """The generative model of actions; None for a policy without one."""
        model = self._modules.get("model")
        if isinstance(model, ActionModel):
            return model
        return None

    @property
    def noise_dim(self) -> int:
        """How many standard normal numbers a chunk of actions is made from; 0 for a policy without a generator."""
        return 0 if self.action_model is None else self.action_model.noise_dim

    @property
    def network_calls(self) -> int | None:
        """Calls so far of the model, if decisions are made by it; None where they take one call, or nobody counts."""
        if self.action_model is None:
            return None
        return getattr(self.action_model.model, "network_calls", None)

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description in words of how actions are sampled."""
        if self.action_model is None:
            return "one call"
        return sampling_of(self.action_model.model, options)


def check_acting(trained: PolicyConfig, given: PolicyConfig, name: str = "policy") -> None:
    """Raises ValueError where settings differ in more than how a policy acts."""
    for key, own, other in differences(to_json(trained), to_json(given)):
        if key not in trained.ACTING:
            raise ValueError(f"{name}.{key} is {other}, and the policy was trained with {own}; only these settings may "
                             f"change after training: {', '.join(trained.ACTING)}")


def action_model_of(policy: Policy) -> ActionModel:
    """The generative model of a policy's actions. Raises ValueError for a policy without one."""
    if policy.action_model is None:
        raise ValueError(f"a {type(policy).__name__} acts without a trajectory model, which this needs; use a policy "
                         "with a model")
    return policy.action_model


POLICIES: Registry[PolicyConfig, Policy[Any]] = Registry({})
"""The policies by their names in the config.json of a run: the class of the settings, which is derived from
`PolicyConfig`, and the class of the policy. Each file adds its own."""

PRESETS: dict[str, tuple[str, PolicyConfig]] = {}
"""The settings of policies by the name of their preset, with a line about each. Each file adds its own."""
