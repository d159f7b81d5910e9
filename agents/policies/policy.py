"""The base classes of policies and of their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from gentraj.config import Registry, settings
from gentraj.families import ModelConfig
from gentraj.models.sample_batch import sampling_of
from gentraj.trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    SamplingOptions,
    TrajectorySpec,
)

from .action_model import ActionModel
from .scales import Observations, Rewards, StateActionScales
from .transition import Transition, mean_one

P = TypeVar("P", bound="PolicyConfig")


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
    """The settings of the value function. A policy that has one can be fine-tuned in its environment."""
    ACTING: ClassVar[tuple[str, ...]] = ("execute",)
    """The settings by which the policy acts. Its training does not depend on them, so they may change after it."""

    def __post_init__(self) -> None:
        if self.execute > self.chunk:
            raise ValueError(f"{type(self).__name__}.execute is {self.execute}; a number up to chunk, {self.chunk}, is "
                             "expected")


class Policy(nn.Module, Generic[P]):
    """Base class of policies, which are `Trainable`.

    A subclass implements `optimizers`, `update` and `sample_actions`. Most have an `ActionModel`, the generative model
    of actions, as `model`. Inside a policy everything is normalised, by `scales`; actions come in chunks of K.
    """

    model: ActionModel

    def __init__(self, config: P, scales: StateActionScales, n_step: int = 1):
        """`n_step` is the number of environment steps in a transition; it is raised to the size of a chunk."""
        super().__init__()
        self.config = config
        self.scales = scales
        self.chunk = config.chunk
        self.execute = config.execute
        self.batch_size = config.batch_size
        self.spec = TrajectorySpec(scales.obs_dim, scales.act_dim, max(config.chunk, n_step) + 1)
        self.state_dim = scales.state_dim
        self.window_spec = TrajectorySpec(scales.state_dim, scales.act_dim, config.chunk)  # of a model of actions

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of the policy's own networks and of its model, by name."""
        raise NotImplementedError

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        """One training step; returns metrics, scalars. Raises `NonFinite` before an optimiser step on a loss or a
        gradient that is not finite."""
        raise NotImplementedError

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """(B, K, A) normalised actions in [-1, 1], with one seed for each state.

        `options` say how the model samples; their temperature multiplies the policy's own, if it has one. Raises
        ValueError for options that the model does not have.
        """
        raise NotImplementedError

    def with_config(self, config: P) -> Self:
        """A policy with the same networks and other settings to act by, those of `ACTING`.

        It is made by the constructor, which checks them.
        """
        with torch.random.fork_rng(devices=[]):
            other = type(self)(config, self.scales)
        for name, child in self.named_children():
            setattr(other, name, child)
        return other.train(self.training)

    def build_model(self, config: ModelConfig, context_dim: int = 0, context_dropout: float = 0.0) -> ActionModel:
        """Builds a model of actions given the state and a context of `context_dim` numbers."""
        return ActionModel(self.window_spec, config, context_dim, context_dropout)

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
        b = torch.arange(len(last_B), device=last_B.device)
        ended_B = batch.terminal_BH[b, last_B]
        power_H = discount ** torch.arange(real_BH.shape[1], device=last_B.device).to(batch.reward_BH)
        reward_BH = scales.reward.normalize(batch.reward_BH[:, :-1, None])[..., 0] * real_BH[:, 1:]  # none in padding
        reward_B = (reward_BH * power_H[:-1]).sum(1)
        real_BK = real_BH[:, 1 : self.chunk + 1]
        act_BKA = scales.act.normalize(act_BHA[:, : self.chunk]) * (real_BK[..., None] & scales.varies_A)
        weight_B = None
        if batch.synthetic_B is not None:
            weight_B = mean_one((~batch.synthetic_B).to(reward_B))
        return Transition(
            state_BS=scales.state(obs_BHO[:, 0], batch.context_BC),
            chunk_BX=act_BKA.flatten(1),
            real_BK=real_BK,
            reward_B=reward_B,
            next_BS=scales.state(obs_BHO[b, last_B], batch.context_BC),
            discount_B=power_H[last_B] * ~ended_B,
            whole_B=real_BK.all(1) | ended_B,
            episode_B=batch.episode_B,
            weight_B=weight_B)

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

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description in words of how actions are sampled."""
        if self.action_model is None:
            return "one call"
        return sampling_of(self.action_model.model, options)


POLICIES: Registry[PolicyConfig, Policy[Any]] = Registry({})
"""The policies by their names in the config.json of a run: the class of the settings, which is derived from
`PolicyConfig`, and the class of the policy. Each file adds its own."""

PRESETS: dict[str, tuple[str, PolicyConfig]] = {}
"""The settings of policies by the name of their preset, with a line about each. Each file adds its own."""
