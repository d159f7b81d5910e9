"""What keeps a discriminator from being too steep: penalties on its gradients and on its changes of mind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Critic = Callable[[Tensor], Tensor]  # x_RHD, normalised units -> c_R, what the discriminator thinks of it
JITTER = 0.1  # normalised units: the change that consistency is about


@dataclass(frozen=True)
class Game:
    """What a discriminator saw at a step. `real` and `fake` (R, H, D) require gradients, `real_R` and `fake_R` are
    the critic's values there; `free` is true for the entries that are real and not known."""

    critic: Critic
    real: Tensor
    fake: Tensor
    real_R: Tensor
    fake_R: Tensor
    free: Tensor
    generator: torch.Generator

    def gradient(self, x: Tensor, c_R: Tensor) -> Tensor:
        """(R, H, D) of the critic with respect to the entries that are free; differentiable."""
        return torch.autograd.grad(c_R.sum(), x, create_graph=True)[0] * self.free

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.real.device)

    def interpolates(self) -> Tensor:
        """u x + (1 - u) G(z), u uniform for each trajectory (Gulrajani et al. 2017, algorithm 1)."""
        u_R11 = torch.rand((len(self.real), 1, 1), generator=self.generator).to(self.real.device)
        return torch.lerp(self.fake.detach(), self.real.detach(), u_R11).requires_grad_()


def r1(game: Game) -> Tensor:
    """||grad c(x)||^2 / 2 at data (Mescheder et al. 2018, equation 9)."""
    return game.gradient(game.real, game.real_R).square().sum((1, 2)) / 2


def r2(game: Game) -> Tensor:
    """The same at samples (Mescheder et al. 2018, equation 10)."""
    return game.gradient(game.fake, game.fake_R).square().sum((1, 2)) / 2


def gradient_penalty(game: Game) -> Tensor:
    """(||grad c(x)|| - 1)^2 at interpolates (Gulrajani et al. 2017, equation 3)."""
    return (interpolate_gradient_norm(game) - 1) ** 2


def zero_centred(game: Game) -> Tensor:
    """||grad c(x)||^2 at interpolates (Thanh-Tung et al. 2019, equation 9)."""
    return interpolate_gradient_norm(game) ** 2


def consistency(game: Game) -> Tensor:
    """(c(x) - c(x + noise))^2 at data (Zhang et al. 2020, equation 2), jitter in place of image augmentations."""
    moved = game.real.detach() + JITTER * game.noise(*game.real.shape) * game.free
    return (game.real_R - game.critic(moved)) ** 2


def interpolate_gradient_norm(game: Game) -> Tensor:
    """(R,) differentiable."""
    x = game.interpolates()
    return (game.gradient(x, game.critic(x)).square().sum((1, 2)) + 1e-12).sqrt()


REGULARISERS: dict[str, Callable[[Game], Tensor]] = {  # a penalty (R,), averaged by the caller
    "r1": r1,
    "r2": r2,
    "gradient-penalty": gradient_penalty,
    "zero-centred": zero_centred,
    "consistency": consistency,
}
