"""What discriminator and generator minimise: adversarial losses, and regularisers of the discriminator.

A loss is a function of the critic's logits c of data and of samples, which the caller averages; the data and the sample
of one row have the same condition. softplus(c) is -log(1 - sigmoid(c)). A regulariser is a penalty on the
discriminator's gradients, or on how it changes under small perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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
        return torch.randn(shape, generator=self.generator).to(self.real.device)

    def interpolates(self) -> Tensor:
        """u x + (1 - u) G(z), with u uniform for each trajectory (Gulrajani et al. 2017, algorithm 1)."""
        u_R11 = torch.rand((len(self.real), 1, 1), generator=self.generator).to(self.real.device)
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

if TYPE_CHECKING:
    ObjectiveName = RegulariserName = str
else:  # what the tables hold
    ObjectiveName = Literal[tuple(OBJECTIVES)]
    RegulariserName = Literal[tuple(REGULARISERS)]
