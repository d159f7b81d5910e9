"""The game of both sides: logits, the losses of either side, and the training step of the discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Interval
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..models.microbatch import Microbatch
from ..networks.discriminator import Discriminator, Logits
from ..training.optimization import LearningConfig, apply_gradients
from ..training.parallel import mean_over_processes
from .objectives import REGULARISERS, Game, Loss, Objective

Decay = Annotated[float, Interval(ge=0, lt=1)]


@settings
class SideConfig(LearningConfig):
    """How one side is trained; two time scales are two learning rates (Heusel et al. 2017)."""

    learning_rate: Fraction = 5e-4
    weight_decay: Fraction = 0.0
    max_grad_norm: PositiveFloat = 10.0
    betas: tuple[Decay, Decay] = (0.0, 0.99)
    """Decay rates of AdamW's moving averages. The first is 0 (no momentum) by default, as the opponent changes and old
    gradients are misleading."""


@parametrize.cached()  # spectral norms are computed once a step
def step_discriminator(discriminator: Discriminator, microbatch: Microbatch, fake: Tensor, objective: Objective,
                       weights: Mapping[str, float], optimizer: Optimizer, max_norm: float) -> dict[str, Tensor]:
    """One optimiser step of the discriminator on the objective and the weighted penalties.

    The metric "real_logit" is the mean patch logit of data.
    """
    x, g = (y.detach().requires_grad_() for y in (microbatch.x0, fake))
    on_real, on_fake = logits(discriminator, x, microbatch), logits(discriminator, g, microbatch)
    game = Game(lambda y: value(logits(discriminator, y, microbatch), microbatch), x, g,
                value(on_real, microbatch), value(on_fake, microbatch), microbatch.free, microbatch.generator)
    loss = mean_loss(objective.discriminator, on_real, on_fake, microbatch)
    penalties = {name: (REGULARISERS[name](game) * microbatch.weight).mean() for name in weights}
    total = loss + sum(weight * penalties[name] for name, weight in weights.items())
    norm = apply_gradients(total, optimizer, max_norm)
    if objective.weight_clip is not None:
        clip_weights(discriminator, objective.weight_clip)
    real_logit = value(Logits(torch.zeros_like(on_real.whole_R), on_real.patch_RH), microbatch).mean()
    return {"discriminator_loss": loss.detach(), "discriminator_grad_norm": norm.detach(),
            "discriminator_accuracy": (game.real_R > game.fake_R).float().mean(), "real_logit": real_logit.detach(),
            **{f"penalty_{name}": penalty.detach() for name, penalty in penalties.items()}}


def logits(discriminator: Discriminator, x: Tensor, microbatch: Microbatch) -> Logits:
    """The discriminator's logits of `x`, which has no noise, under the conditions of the microbatch."""
    whole, patch = discriminator(x, microbatch.x0 * microbatch.known, microbatch.known, x.new_zeros(1),
                                 microbatch.context)
    if patch is not None:
        patch = patch.float()  # float32 under autocast too
    return Logits(whole.float(), patch)


def value(output: Logits, microbatch: Microbatch) -> Tensor:
    """The critic's value c (R,): the logit of the whole trajectory plus the mean logit of its real timesteps."""
    if output.patch_RH is None:
        return output.whole_R
    real_RH = microbatch.real[..., 0]
    return output.whole_R + (output.patch_RH * real_RH).sum(1) / real_RH.sum(1).clamp(min=1)


def mean_loss(loss: Loss, real: Logits, fake: Logits, microbatch: Microbatch) -> Tensor:
    """The weighted mean loss of whole trajectories plus that of their real timesteps."""
    whole = (loss(real.whole_R, fake.whole_R) * microbatch.weight).mean()
    if real.patch_RH is None or fake.patch_RH is None:
        return whole
    real_RH = microbatch.real[..., 0]
    patches = (loss(real.patch_RH, fake.patch_RH) * real_RH * microbatch.weight[:, None]).sum()
    return whole + patches / mean_over_processes(real_RH.sum())


@parametrize.cached()
def adversarial_loss(discriminator: Discriminator, microbatch: Microbatch, fake: Tensor,
                     objective: Objective) -> tuple[Tensor, Tensor]:
    """The generator's loss in the game, and its mean |d loss / d logit| at samples: 0 if the objective is saturated.

    The gradient reaches the samples, but not the weights of the discriminator.
    """
    discriminator.requires_grad_(False)
    try:
        with torch.no_grad():
            on_real = logits(discriminator, microbatch.x0, microbatch)
        on_fake = logits(discriminator, fake, microbatch)
    finally:
        discriminator.requires_grad_(True)
    loss = mean_loss(objective.generator, on_real, on_fake, microbatch)
    return loss, torch.autograd.grad(loss, on_fake.whole_R, retain_graph=True)[0].abs().sum()


@torch.no_grad()
def clip_weights(discriminator: Discriminator, limit: float) -> None:
    """Clips all weights to [-limit, limit] (Arjovsky et al. 2017, algorithm 1)."""
    for parameter in discriminator.parameters():
        parameter.clamp_(-limit, limit)
