"""A generative model of trajectories as a model of actions: its windows are a state and the chunk that follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.families import MODELS, Model, ModelConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.models.sample_batch import Guidance
from gentraj.normalize import Normalizer
from gentraj.randomness import unfold_each
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions, TrajectorySpec

from .transition import Transition, mean_one

STATE_KNOWN = ConditionMix(start=0, goal=0, observations=1)  # a model is conditioned on the state, not on actions


def join(state_BS: Tensor, act_BKA: Tensor) -> Tensor:
    """Windows (B, K, D) of K timesteps: the state, the same in each timestep, and an action of the chunk (B, K, A)."""
    return torch.cat([state_BS[:, None].expand(-1, act_BKA.shape[1], -1), act_BKA], -1)


class ActionModel(nn.Module):
    """p(a | s, c): a generative model of chunks of actions, given the state and a context of `context_dim` numbers.

    `model` is the `TrajectoryModel` of the windows of `join`, in whose `spec` the state takes the place of the
    observation. Actions are sampled with a context of ones. Everything is normalised.
    """

    state_mask: Tensor
    """(D,) true for the entries of the state in each timestep, which are always known."""

    def __init__(self, spec: TrajectorySpec, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0):
        super().__init__()
        self.spec = spec
        self.context_dim = context_dim
        context = Normalizer.identity(context_dim) if context_dim else None
        self.model: Model = MODELS.made_of(config)(
            spec, config, Normalizer.identity(spec.dim), context, conditioning=STATE_KNOWN,
            context_dropout=context_dropout)
        self.register_buffer("state_mask", torch.arange(spec.dim) < spec.obs_dim, persistent=False)

    def optimizers(self) -> dict[str, Optimizer]:
        return self.model.optimizers()

    def states(self, x: Tensor) -> Tensor:
        """Takes the states (..., S) from windows (..., K, D)."""
        return x[..., 0, : self.spec.obs_dim]

    def actions(self, x: Tensor) -> Tensor:
        """Takes the actions (..., K, A) from windows (..., K, D), clamped to the data's bounds."""
        return x[..., self.spec.obs_dim :].clamp(-1, 1)

    def update(self, t: Transition, optimizers: dict[str, Optimizer], generator: torch.Generator,
               weight_B: Tensor | None = None, context_BC: Tensor | None = None, **guide: Any) -> dict[str, Tensor]:
        """One optimiser step on the model's loss of the data's actions: of each state with the chunk that followed it,
        as far as the episode goes.

        `weight_B` are weights in addition to those of the transitions. `guide` are further arguments of the model's
        `update`, such as a guide whose score it maximises. Returns metrics.
        """
        x_BKD = join(t.state_BS, t.chunk_BX.unflatten(1, (self.spec.horizon, -1)))
        if t.weight_B is not None:
            weight_B = t.weight_B if weight_B is None else mean_one(t.weight_B * weight_B)
        batch = Batch(x_BKD, t.real_BK[..., None] | self.state_mask, context_BC, weight_B=weight_B)
        return self.model.update(batch, optimizers, generator, **guide)

    def condition(self, state_BS: Tensor, *, finite: bool = False) -> Condition:
        """The states are known, the actions are not. States that are `finite` are not checked, as those of the training
        data."""
        x = join(state_BS, state_BS.new_zeros(len(state_BS), self.spec.horizon, self.spec.act_dim))
        context_BC = state_BS.new_ones(len(state_BS), self.context_dim) if self.context_dim else None
        return Condition(self.spec, x, self.state_mask.expand_as(x), context_BC, finite=finite)

    def sample(self, state_BS: Tensor, seeds: Sequence[int], options: SamplingOptions = DEFAULT_OPTIONS,
               number: int = 1, guide: Guidance = None) -> Tensor:
        """(B, N, K, A) chunks of actions in [-1, 1], `number` for each state, with one seed for each state."""
        if number > 1:
            seeds = unfold_each(number, seeds)
        return self.actions(self.model.sample(self.condition(state_BS), number, guide=guide, seed=seeds,
                                              options=options))
