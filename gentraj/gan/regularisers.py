"""Regularisers of a discriminator: penalties on its gradients, and on how it changes under small perturbations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]  # x_RHD in normalised units -> the discriminator's value c_R
JITTER = 0.1  # normalised units: the standard deviation of the perturbation in `consistency`


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
