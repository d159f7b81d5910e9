"""The game of both sides: adversarial losses, regularisers of the discriminator, and its training step.

A loss is a function of the critic's logits c of data and of samples, which the caller averages; the data and the sample
of one row have the same condition. softplus(c) is -log(1 - sigmoid(c)). A regulariser is a penalty on the
discriminator's gradients, or on how it changes under small perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn.utils import parametrize

from ..config import Fraction, OneOf, settings
from ..device import to_device
from ..models.conditional import Microbatch
from ..networks.discriminator import Discriminator, Logits
from ..training.optimization import LearningConfig
from ..training.step import TrainingStep

Critic = Callable[[Tensor], Tensor]  # x_RHD in normalised units -> the discriminator's value c_R
JITTER = 0.1  # normalised units: the standard deviation of the perturbation in `consistency`
Loss = Callable[[Tensor, Tensor], Tensor]  # logits of (real, fake), of one shape -> a loss of that shape


@dataclass(frozen=True)
class Objective:
    """The losses of both sides, and the regularisation that belongs to them."""

    discriminator: Loss
    generator: Loss
    penalties: Mapping[str, float] = field(default_factory=dict)
    """The default regularisers and their weights, as in the objective's paper."""
    weight_clip: float | None = None
    """The bound to which the discriminator's weights are clipped."""


def _log_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-[log D(x) + log(1 - D(G(z)))], D = sigmoid(c)."""
    return F.softplus(-real) + F.softplus(fake)


OBJECTIVES: dict[str, Objective] = {
    # Goodfellow et al. 2014, equation 1: min_G max_D E log D(x) + E log(1 - D(G(z)))
    "minimax": Objective(_log_loss, lambda real, fake: -F.softplus(fake)),
    # Goodfellow et al. 2014, section 3: max_G E log D(G(z))
    "non-saturating": Objective(_log_loss, lambda real, fake: F.softplus(-fake)),
    # Mao et al. 2017, equation 9: a = 0, b = c = 1
    "least-squares": Objective(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2,
                               lambda real, fake: (fake - 1) ** 2 / 2),
    # Lim & Ye 2017; Miyato et al. 2018, equations 16 and 17
    "hinge": Objective(lambda real, fake: F.relu(1 - real) + F.relu(1 + fake), lambda real, fake: -fake),
    # Arjovsky et al. 2017, algorithm 1
    "wasserstein-clip": Objective(lambda real, fake: fake - real, lambda real, fake: -fake, weight_clip=0.01),
    # Gulrajani et al. 2017, equation 3
    "wasserstein-gp": Objective(lambda real, fake: fake - real, lambda real, fake: -fake,
                                penalties={"gradient-penalty": 10.0}),
    # Jolicoeur-Martineau 2019; with R1 and R2 it is R3GAN (Huang et al. 2024, equations 1 to 4)
    "relativistic": Objective(lambda real, fake: F.softplus(fake - real), lambda real, fake: F.softplus(real - fake),
                              penalties={"r1": 1.0, "r2": 1.0}),
}

@dataclass(frozen=True)
class Game:
    """The inputs and values of a discriminator at one step.

    `real` and `fake` (R, H, D) require gradients, and `real_R` and `fake_R` are the critic's values of them. `free` is
    true for the entries that are real and unknown.
    """

    critic: Critic
    real: Tensor
    fake: Tensor
    real_R: Tensor
    fake_R: Tensor
    free: Tensor
    generator: torch.Generator

    def gradient(self, x: Tensor, c_R: Tensor) -> Tensor:
        """The critic's gradient (R, H, D) with respect to the free entries of `x`; differentiable."""
        return torch.autograd.grad(c_R.sum(), x, create_graph=True)[0] * self.free

    def noise(self, *shape: int) -> Tensor:
        return to_device(torch.randn(shape, generator=self.generator), self.real.device)

    def interpolates(self) -> Tensor:
        """u x + (1 - u) G(z), with u uniform for each trajectory (Gulrajani et al. 2017, algorithm 1)."""
        u_R11 = to_device(torch.rand((len(self.real), 1, 1), generator=self.generator), self.real.device)
        return torch.lerp(self.fake.detach(), self.real.detach(), u_R11).requires_grad_()


def r1(game: Game) -> Tensor:
    """||grad c(x)||^2 / 2 at data (Mescheder et al. 2018, equation 9)."""
    return game.gradient(game.real, game.real_R).square().sum((1, 2)) / 2


def r2(game: Game) -> Tensor:
    """||grad c(G(z))||^2 / 2 at samples (Mescheder et al. 2018, equation 10)."""
    return game.gradient(game.fake, game.fake_R).square().sum((1, 2)) / 2


def gradient_penalty(game: Game) -> Tensor:
    """(||grad c(x)|| - 1)^2 at interpolates (Gulrajani et al. 2017, equation 3)."""
    return (interpolate_gradient_norm(game) - 1) ** 2


def zero_centred(game: Game) -> Tensor:
    """||grad c(x)||^2 at interpolates (Thanh-Tung et al. 2019, equation 9)."""
    return interpolate_gradient_norm(game) ** 2


def consistency(game: Game) -> Tensor:
    """(c(x) - c(x + noise))^2 at data (Zhang et al. 2020, equation 2), with noise in place of image augmentations."""
    moved = game.real.detach() + JITTER * game.noise(*game.real.shape) * game.free
    return (game.real_R - game.critic(moved)) ** 2


def interpolate_gradient_norm(game: Game) -> Tensor:
    """The norm (R,) of the critic's gradient at interpolates; differentiable."""
    x = game.interpolates()
    return (game.gradient(x, game.critic(x)).square().sum((1, 2)) + 1e-12).sqrt()


REGULARISERS: dict[str, Callable[[Game], Tensor]] = {  # penalties (R,), which the caller averages
    "r1": r1,
    "r2": r2,
    "gradient-penalty": gradient_penalty,
    "zero-centred": zero_centred,
    "consistency": consistency,
}

ObjectiveName = Annotated[str, OneOf(OBJECTIVES)]
RegulariserName = Annotated[str, OneOf(REGULARISERS)]


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


def step_discriminator(discriminator: Discriminator, microbatch: Microbatch, fake: Tensor, objective: Objective,
                       weights: Mapping[str, float], step: TrainingStep, max_norm: float) -> dict[str, Tensor]:
    """One optimiser step of the discriminator on `discriminator_loss`; returns its metrics."""
    loss, metrics = discriminator_loss(discriminator, microbatch, fake, objective, weights)
    norm = step.descend(loss, "discriminator", max_norm)
    if objective.weight_clip is not None:
        clip_weights(discriminator, objective.weight_clip)
    return metrics | {"discriminator_grad_norm": norm.detach()}


@parametrize.cached()  # spectral norms are computed once a step
def discriminator_loss(discriminator: Discriminator, microbatch: Microbatch, fake: Tensor, objective: Objective,
                       weights: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective's loss of the discriminator plus the weighted penalties, a scalar, and metrics.

    The metric "real_logit" is the mean patch logit of data.
    """
    x, g = (y.detach().requires_grad_() for y in (microbatch.x0, fake))
    on_real, on_fake = logits(discriminator, x, microbatch), logits(discriminator, g, microbatch)
    game = Game(lambda y: value(logits(discriminator, y, microbatch), microbatch), x, g,
                value(on_real, microbatch), value(on_fake, microbatch), microbatch.free, microbatch.generator)
    loss = mean_loss(objective.discriminator, on_real, on_fake, microbatch)
    penalties = {name: (REGULARISERS[name](game) * microbatch.weight).mean() for name in weights}
    total = loss + sum(weight * penalties[name] for name, weight in weights.items())
    real_logit = value(Logits(torch.zeros_like(on_real.whole_R), on_real.patch_RH), microbatch).mean()
    accuracy = (game.real_R > game.fake_R).float().mean()
    return total, {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy,
                   "real_logit": real_logit.detach(),
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
    return whole + patches / real_RH.sum()


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
