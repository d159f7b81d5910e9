"""Behaviour cloning with any generative model: L(theta) is the model's own loss of the data's actions.

Diffusion of chunks of actions is Diffusion Policy (Chi et al. 2023, arXiv 2303.04137).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.optim import Optimizer

from gentraj.config import settings
from gentraj.families import DIFFUSION, FLOW, GAN, GAUSSIAN, ModelConfig
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, SamplingOptions

from .policy import POLICIES, PRESETS, Policy, PolicyConfig
from .scales import StateActionScales


@settings
class BCConfig(PolicyConfig):
    """The settings of `BC`. Raises ValueError for a setting outside its range."""

    model: ModelConfig = field(default_factory=lambda: DIFFUSION)
    """The generative model of actions."""
    temperature: NonNegativeFloat = 1.0
    """Scale of the noise that an action is sampled from, multiplied by the temperature of the sampling options."""

    ACTING: ClassVar[tuple[str, ...]] = ("execute", "temperature")


class BC(Policy[BCConfig]):
    """Behaviour cloning: a generative model of actions given the state, from which actions are sampled."""

    def __init__(self, config: BCConfig, scales: StateActionScales):
        super().__init__(config, scales)
        self.model = self.build_model(config.model)

    def optimizers(self) -> dict[str, Optimizer]:
        return self.model.optimizers()

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        return self.model.update(self.transition(batch, 1.0), optimizers, generator)

    def sample_actions(self, state_BS: Tensor, seeds: Sequence[int],
                       options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        options = replace(options, temperature=options.temperature * self.config.temperature)
        return self.model.sample(state_BS, seeds, options)[:, 0]


POLICIES["bc"] = BCConfig, BC
PRESETS["bc-gaussian"] = "behaviour cloning by a normal distribution", BCConfig(GAUSSIAN)
PRESETS["bc-diffusion"] = "behaviour cloning by a diffusion model", BCConfig(DIFFUSION)
PRESETS["bc-flow"] = "behaviour cloning by a rectified flow", BCConfig(FLOW)
PRESETS["bc-gan"] = "behaviour cloning by a conditional GAN, with one network call per action", BCConfig(GAN)
PRESETS["diffusion-policy"] = ("behaviour cloning of chunks of actions by a diffusion model",
                               BCConfig(DIFFUSION, chunk=8, execute=4))
