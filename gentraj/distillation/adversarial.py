"""Adversarial distillation: a student learns its teacher's trajectories and to deceive a discriminator of the data.

Sauer et al. 2023, "Adversarial Diffusion Distillation", equation 1, with the teacher's samples of the same noise as
targets, and with the discriminator and the losses of our GAN.
"""

from __future__ import annotations

from dataclasses import field

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.optim import Optimizer

from ..config import settings
from ..gan.objectives import OBJECTIVES, ObjectiveName, SideConfig, adversarial_loss, step_discriminator
from ..models.conditional import Microbatch
from ..models.conditioning import encoded_width
from ..networks.discriminator import Discriminator, DiscriminatorConfig
from ..training.optimization import adamw
from ..training.step import TrainingStep
from ..trajectory import Guide
from .reflow import Reflow, ReflowConfig


@settings
class AdversarialConfig(ReflowConfig):
    """Settings of a student by adversarial distillation. Raises ValueError for a setting outside its range."""

    adversarial: NonNegativeFloat = 0.1
    """Weight of the adversarial loss of samples from one call beside the error to the teacher's trajectories."""
    objective: ObjectiveName = "relativistic"
    """Adversarial losses of the discriminator and the generator."""
    discriminator: DiscriminatorConfig = field(default_factory=lambda: DiscriminatorConfig(multipliers=(1,)))
    """The discriminator, a network of residual convolutions over time."""
    discriminator_learning: SideConfig = field(default_factory=SideConfig)
    """How the discriminator is trained."""


class Adversarial(Reflow):
    """A student that learns its teacher's trajectories and to deceive a discriminator of the data."""

    distillation: AdversarialConfig

    def add_parts(self) -> None:
        self.rules = OBJECTIVES[self.distillation.objective]
        self.discriminator = Discriminator(self.spec.dim, self.spec.horizon, encoded_width(self.context),
                                           self.distillation.discriminator)

    def optimizers(self) -> dict[str, Optimizer]:
        side = self.distillation.discriminator_learning
        return super().optimizers() | {"discriminator": adamw(self.discriminator, side, side.betas)}

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """One step of the discriminator, and then one of the student; returns metrics, scalars."""
        rows = self.microbatch(step)
        with torch.no_grad():
            fake = self.one_call(rows) * rows.real
        judged = step_discriminator(self.discriminator, rows, fake, self.rules, self.rules.penalties, step,
                                    self.distillation.discriminator_learning.max_grad_norm)
        return judged | super().update(step, guide=guide)

    def objective(self, rows: Microbatch) -> Tensor:
        """The error to the teacher's trajectories, and the generator's loss of samples from one call: a scalar."""
        deceived, _ = adversarial_loss(self.discriminator, rows, self.one_call(rows) * rows.real, self.rules)
        return super().objective(rows) + self.distillation.adversarial * deceived
