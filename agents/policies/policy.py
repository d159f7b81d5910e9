"""A policy is trained on windows and gives the next actions; an `Actor` carries them out, episode by episode.

Inside a policy everything is normalised. It knows a state s_BS, the observation and, where there is one, the context
(a goal) beside it, and chunks of K actions; its generator, if it has one, models windows x_BKD whose observation
is the state, always known and the same in each row, and whose actions are the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.data import ContextConfig, Episodes
from gentraj.data.context import fit_contexts
from gentraj.families import MODELS, Model, ModelConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.networks.rows import padded, padding
from gentraj.normalize import Normalizer
from gentraj.randomness import unfold_each
from gentraj.trajectory import Batch, Condition, TrajectorySpec

from ..episodes import Playing

FAR = 10.0  # deviations: an entry that hardly moved in the data says no more than that
KNOWN = ConditionMix(start=0, goal=0, observations=1)  # all of a state, nothing of the actions


class Usual(NamedTuple):
    """Means over the steps of the data: the reward, in units of its root mean square, and how often a step ends it."""

    reward: float
    end_rate: float

    def value(self, discount: float) -> float:
        """Of such rewards until such an end."""
        return self.reward / (1 - discount * (1 - self.end_rate))


UNKNOWN = Usual(0.0, 0.0)


@dataclass(frozen=True)
class Scales:
    """How a policy normalises what it is given. Rewards are divided by their root mean square, not shifted."""

    obs: Normalizer
    act: Normalizer
    context: Normalizer | None
    reward: Normalizer
    usual: Usual = UNKNOWN
    """What values start from."""

    @classmethod
    def fit(cls, episodes: Episodes, contexts: ContextConfig) -> Scales:
        """Rewards and ends are of what was played, not of what a world model imagined, whose episodes are short. Raises
        `DataError` for data that lack a context."""
        context, played = fit_contexts(episodes, contexts), episodes.played()
        size = float(np.sqrt(np.square(played.reward, dtype=np.float64).mean()))
        reward = Normalizer(torch.zeros(1), torch.full((1,), size or 1.0))
        return cls(Normalizer.fit("gaussian", [episodes.obs]), Normalizer.fit("limits", [episodes.act]), context,
                   reward, Usual(float(played.reward.mean(dtype=np.float64)) / (size or 1.0),
                                 float(played.terminated.mean())))

    @classmethod
    def blank(cls, obs_dim: int, act_dim: int, context_dim: int) -> Scales:
        """With room to load saved ones into."""
        identity = Normalizer.identity
        return cls(identity(obs_dim), identity(act_dim), identity(context_dim) if context_dim else None, identity(1))


class Settings(Protocol):
    """What the config of every policy says."""

    @property
    def chunk(self) -> int:
        """K, the actions that are decided together."""
        ...

    @property
    def execute(self) -> int:
        """Of these, the actions that are carried out before the next are decided."""
        ...

    @property
    def batch_size(self) -> int: ...


@dataclass(frozen=True)
class Transition:
    """What happened in the windows of a batch, normalised: at most K actions, and the state that is reached after them.

    That state may lie further on than the last of the actions: what the data did in between counts as if it followed.
    """

    state_BS: Tensor
    act_BKA: Tensor
    real_BK: Tensor
    """Which actions were taken before the episode ended."""
    reward_B: Tensor
    """Discounted sum."""
    next_BS: Tensor
    discount_B: Tensor
    """Of what comes after; 0 where the episode ended for good, not where a time limit cut it."""
    episode_B: Tensor
    """As in `Batch`."""
    weight_B: Tensor | None = None
    """Of mean 1: how much each counts for a policy, which learns of what was done, not of what a world model imagined;
    critics learn of all. None is alike."""

    @property
    def whole_B(self) -> Tensor:
        """Where the chunk is whole, or the episode ended for good: its missing actions are then of no consequence."""
        return self.real_BK.all(1) | (self.discount_B == 0)

    def weights(self) -> Tensor:
        """(B,), or a one for all."""
        return self.reward_B.new_ones(1) if self.weight_B is None else self.weight_B

    @property
    def chunk_BX(self) -> Tensor:
        """The actions side by side, 0 after the end."""
        return (self.act_BKA * self.real_BK[..., None]).flatten(1)


class Policy(nn.Module):
    """`Trainable`. A subclass has `optimizers`, `update` and `decide`."""

    def __init__(self, obs_dim: int, act_dim: int, config: Settings, scales: Scales, reach: int = 1):
        """`reach` are the steps after which a transition ends, at least those of a chunk."""
        super().__init__()
        self.obs, self.act_scale, self.context, self.reward = scales.obs, scales.act, scales.context, scales.reward
        self.usual = scales.usual
        self.chunk, self.execute, self.batch_size = config.chunk, config.execute, config.batch_size
        self.spec = TrajectorySpec(obs_dim, act_dim, max(config.chunk, reach) + 1)
        self.state_dim = obs_dim + (0 if scales.context is None else len(scales.context.shift_D))
        self.window_spec = TrajectorySpec(self.state_dim, act_dim, config.chunk)  # what a generator models

    def optimizers(self) -> dict[str, Optimizer]:
        raise NotImplementedError

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def decide(self, state_BS: Tensor, seeds: Sequence[int]) -> Tensor:
        """(B, K, A) normalised actions."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self.obs.shift_D.device

    @property
    def network_calls(self) -> int:
        """Calls of its generator so far."""
        return cast(Any, self).model.network_calls

    def sampling(self) -> str:
        """How it draws actions, in words."""
        return cast(Any, self).model.sampling()

    def use(self, *, sampler: str | None = None, grid: str | None = None, eta: float | None = None) -> None:
        """From now on draw actions in another way. Raises ValueError where its generator cannot."""
        cast(Any, self).model.use(sampler=sampler, grid=grid, eta=eta)

    def generator(self, config: ModelConfig, told: int = 0) -> Model:
        """A model of windows x_BKD whose state is known, and that is told so many numbers beside."""
        identity, context = Normalizer.identity(self.window_spec.dim), Normalizer.identity(told) if told else None
        return MODELS[type(config)](self.window_spec, config.with_mix(KNOWN), identity, context)

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
        obs_BHO, act_BHA = self.spec.split(batch.x_BHD)
        real_BH, steps_B = batch.mask_BHD[..., 0], batch.mask_BHD[..., 0].sum(1) - 1
        reward_BH, terminal_BH = cast(Tensor, batch.reward_BH), cast(Tensor, batch.terminal_BH)
        rows, h_H = (torch.arange(n, device=steps_B.device) for n in real_BH.shape)
        power_H = discount ** h_H.to(reward_BH)
        reward_B = (self.reward.normalize(reward_BH[:, :-1, None])[..., 0] * power_H[:-1]).sum(1)
        ended_B = terminal_BH[rows, steps_B]
        act_BKA, real_BK = act_BHA[:, : self.chunk], real_BH[:, 1 : self.chunk + 1]
        ends = obs_BHO[:, 0], obs_BHO[rows, steps_B]
        before_BS, after_BS = (self.state(obs_BO, batch.context_BC) for obs_BO in ends)
        weight_B = None if batch.imagined_B is None else mean_one((~batch.imagined_B).to(reward_B))
        return Transition(before_BS, self.act_scale.normalize(act_BKA), real_BK, reward_B, after_BS,
                          power_H[steps_B] * ~ended_B, cast(Tensor, batch.episode_B), weight_B)

    def windows(self, t: Transition, weight_B: Tensor | None = None) -> Batch:
        """What the generator learns: the chunk that followed each state."""
        x_BKD = self.join(t.state_BS, t.chunk_BX.view_as(t.act_BKA))
        if t.weight_B is not None:
            weight_B = t.weight_B if weight_B is None else mean_one(t.weight_B * weight_B)
        return Batch(x_BKD, t.real_BK[..., None] | self.state_mask, weight_B=weight_B)

    def join(self, state_BS: Tensor, act_BKA: Tensor) -> Tensor:
        """(B, K, D) windows of the generator."""
        return torch.cat([state_BS[:, None].expand(-1, self.chunk, -1), act_BKA], -1)

    @property
    def state_mask(self) -> Tensor:
        """(D,) true for the entries of a window's row that are the state."""
        return torch.arange(self.window_spec.dim, device=self.device) < self.state_dim

    def known(self, state_BS: Tensor) -> Condition:
        """What the generator is told of a state."""
        x = self.join(state_BS, state_BS.new_zeros(len(state_BS), self.chunk, self.spec.act_dim))
        return Condition(self.window_spec, x, self.state_mask.expand_as(x))

    def states(self, x: Tensor) -> Tensor:
        """The generator's windows (..., K, D) -> states (..., S)."""
        return x[..., 0, : self.state_dim]

    def actions(self, x: Tensor) -> Tensor:
        """The generator's windows (..., K, D) -> actions (..., K, A) inside the data's bounds."""
        return x[..., self.state_dim :].clamp(-1, 1)

    def candidates(self, model: Model, state_BS: Tensor, number: int, seeds: Sequence[int]) -> Tensor:
        """(B, N, K, A) that a generator draws for each state."""
        return self.actions(model.sample(self.known(state_BS), number, seed=unfold_each(number, seeds)))


def mean_one(weight_B: Tensor) -> Tensor:
    """Over their mean; all zeros stay so."""
    return weight_B / weight_B.mean().clamp(min=1e-6)


def seed_of(generator: torch.Generator) -> int:
    """A seed for what is drawn with seeds, from the generator of an update."""
    return int(torch.randint(2**62, (), generator=generator))


class Actor(Playing):
    """The `Agent` of a policy: decides a chunk, carries out some of it, decides again."""

    def __init__(self, policy: Policy, low_A: np.ndarray, high_A: np.ndarray):
        self.policy = policy
        self.low_A, self.high_A = torch.as_tensor(low_A).float(), torch.as_tensor(high_A).float()
        self._begin(0)

    @property
    def spec(self) -> TrajectorySpec:
        return self.policy.spec

    @property
    def device(self) -> torch.device:
        return self.policy.device

    @property
    def network_calls(self) -> int:
        return self.policy.network_calls

    def _allocate(self, batch: int) -> None:
        self.age_B = torch.full((batch,), self.policy.execute)
        self.queue_BKA = torch.zeros(batch, self.policy.chunk, self.policy.spec.act_dim)

    def _forget(self, mask_B: Tensor) -> None:
        self.age_B[mask_B] = self.policy.execute

    @torch.no_grad()
    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """(B, A) inside the action space. A goal is heeded by a policy that was trained with goals."""
        self._play(len(obs_BO))
        due_B = self.age_B >= self.policy.execute
        if due_B.any():
            device, goal_BG = self.device, None if self.policy.context is None else goal_BG
            state = self.policy.state(obs_BO[due_B].to(device), None if goal_BG is None else goal_BG[due_B].to(device))
            more = [0] * padding(len(state))  # so that an action does not depend on how many are decided beside it
            seeds = [*self._seeds(due_B), *more]
            chunk = self.policy.act_scale.unnormalize(self.policy.decide(padded(state), seeds))
            self.queue_BKA[due_B] = chunk[: len(state)].to(self.queue_BKA.device)
            self.age_B[due_B] = 0
            self.decision_B[due_B] += 1
        act_BA = self.queue_BKA[torch.arange(len(obs_BO)), self.age_B]
        self.age_B += 1
        return act_BA.clamp(self.low_A, self.high_A)
