"""Behaviour cloning with any generative model; diffusion of chunks of actions is Diffusion Policy (Chi et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import require
from gentraj.families import Model, ModelConfig
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .generators import DIFFUSION
from .policy import Policy, PolicyConfig, Scales


@dataclass(frozen=True)
class BCConfig(PolicyConfig):
    """The settings of `BC`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    temperature: float = 1.0
    """Scale of the noise that an action is sampled from, multiplied by the temperature of the sampling options."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, temperature=(0, 10))


class BC(Policy[Model]):
    """Behaviour cloning: a generative model of actions given the state, from which actions are sampled."""

    def __init__(self, obs_dim: int, act_dim: int, config: BCConfig, scales: Scales):
        super().__init__(obs_dim, act_dim, config, scales)
        self.config, self.model = config, self.build_model(config.model)

    def optimizers(self) -> dict[str, Optimizer]:
        return self.model.optimizers()

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        return self.model.update(self.windows(self.transition(batch, 1.0)), optimizers, generator)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        return self.actions(self.model.sample(self.condition(state_BS), seed=seeds, options=options)[:, 0])
