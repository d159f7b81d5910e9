"""One step of each side: the discriminator on data and samples, the generator against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from ..networks.discriminator import Discriminator, Verdict
from ..training.optimization import apply_gradients
from .objectives import Loss, Objective
from .regularisers import REGULARISERS, Game

Generate = Callable[["Microbatch"], Tensor]
FINE = 0.02  # normalised units: finer differences are no lack of variety, where the condition decides everything


@dataclass(frozen=True)
class Microbatch:
    """The windows of a step: `x0` in normalised units (0 where padded), what is real and what is known of them."""

    x0: Tensor
    real: Tensor
    known: Tensor
    context: Tensor | None
    weight: Tensor
    """(R,), or (1,) for all alike."""
    noise: float
    """Most noise on what the discriminator sees."""
    generator: torch.Generator

    @property
    def free(self) -> Tensor:
        return self.real & ~self.known

    def twins(self) -> Microbatch:
        """The first half of the conditions, then the same once more: two samples of each can be compared."""
        half = torch.arange((len(self.x0) + 1) // 2, device=self.x0.device).repeat(2)
        several = lambda y: y if y is None or len(y) == 1 else y[half]  # noqa: E731
        return replace(self, x0=self.x0[half], real=self.real[half], known=self.known[half],
                       context=several(self.context), weight=several(self.weight))

    def normal(self) -> Tensor:
        return torch.randn(self.x0.shape, generator=self.generator).to(self.x0.device)

    def levels(self) -> Tensor:
        """(R,) noise levels in [0, 1], or (1,) zero without noise."""
        if not self.noise:
            return self.x0.new_zeros(1)
        return torch.rand(len(self.x0), generator=self.generator).to(self.x0.device)

    def blurred(self, x: Tensor, t_R: Tensor) -> Tensor:
        """Diffusion-GAN's x + sigma eps (Wang et al. 2023, section 3.1), variance exploding, on what is free."""
        return x + self.noise * t_R[:, None, None] * self.normal() * self.free if self.noise else x


@parametrize.cached()  # spectral norms are taken once a step
def step_discriminator(discriminator: Discriminator, microbatch: Microbatch, fake: Tensor, objective: Objective,
                       weights: dict[str, float], optimizer: Optimizer, max_norm: float) -> dict[str, Tensor]:
    """On the objective and the weighted penalties. "real_logit" is the patches' mean on data."""
    t_R = microbatch.levels()  # the same for both: only then can a pair be told apart by nothing else
    x, g = (microbatch.blurred(y, t_R).detach().requires_grad_() for y in (microbatch.x0, fake))
    real, false = judge(discriminator, x, microbatch, t_R), judge(discriminator, g, microbatch, t_R)
    game = Game(lambda y: value(judge(discriminator, y, microbatch, t_R), microbatch), x, g, value(real, microbatch),
                value(false, microbatch), microbatch.free, microbatch.generator)
    loss = mean_loss(objective.discriminator, real, false, microbatch)
    penalties = {name: REGULARISERS[name](game).mean() for name in weights}
    total = loss + sum(weight * penalties[name] for name, weight in weights.items())
    norm = apply_gradients(total, optimizer, max_norm)
    if objective.weight_clip is not None:
        clip_weights(discriminator, objective.weight_clip)
    real_logit = value(Verdict(torch.zeros_like(real.whole_R), real.patch_RH), microbatch).mean()
    return {"discriminator_loss": loss.detach(), "discriminator_grad_norm": norm.detach(),
            "discriminator_accuracy": (game.real_R > game.fake_R).float().mean(), "real_logit": real_logit.detach(),
            **{f"penalty_{name}": penalty.detach() for name, penalty in penalties.items()}}


@parametrize.cached()
def step_generator(discriminator: Discriminator, twins: Microbatch, generate: Generate, objective: Objective,
                   energy_weight: float, optimizer: Optimizer, max_norm: float,
                   guide: Callable[[Tensor, Microbatch], Tensor] | None = None) -> dict[str, Tensor]:
    """On the objective, the weighted energy score and minus the guide's mean score of samples, in normalised units.

    "variety" is how far two samples of one condition are apart, over how far they are from the data: 1 where the
    distribution under the condition is right. "generator_slope" is the mean |d objective / d logit| at samples: 0 where
    it is saturated.
    """
    discriminator.requires_grad_(False)
    try:
        fake, t_R = generate(twins), twins.levels()
        with torch.no_grad():
            real = judge(discriminator, twins.blurred(twins.x0, t_R), twins, t_R)
        false = judge(discriminator, twins.blurred(fake, t_R), twins, t_R)
        loss = mean_loss(objective.generator, real, false, twins)
        slope = torch.autograd.grad(loss, false.whole_R, retain_graph=True)[0].abs().sum()
        score, variety = energy_score(twins, fake)
        total = loss + energy_weight * score
        if guide is not None:
            total = total - (guide(fake, twins) * twins.weight).mean()
        norm = apply_gradients(total, optimizer, max_norm)
    finally:
        discriminator.requires_grad_(True)
    return {"generator_loss": loss.detach(), "generator_grad_norm": norm.detach(), "energy_score": score.detach(),
            "variety": variety.detach(), "generator_slope": slope}


def energy_score(twins: Microbatch, fake: Tensor) -> tuple[Tensor, Tensor]:
    """E |G - x| - E |G - G'| / 2, and E |G - G'| over E |G - x|; |.| is a root mean square over what is free.

    A proper scoring rule (Gneiting & Raftery 2007, equation 21): the distribution of the data under the condition, and
    no other, is its least, whatever the discriminator thinks. Cramer GANs play for it (Bellemare et al. 2017).
    """
    (x, _), (g, h), (free, _) = twins.x0.chunk(2), fake.chunk(2), twins.free.chunk(2)
    weight = twins.weight[: len(x)]
    off = ((distance(g, x, free) + distance(h, x, free)) * weight).mean() / 2
    apart = (distance(g, h, free) * weight).mean()
    return off - apart / 2, (apart + FINE) / (off + FINE)


def distance(x: Tensor, y: Tensor, free: Tensor) -> Tensor:
    """(R,) root mean square difference of the free entries."""
    square = ((x - y) ** 2 * free).sum((1, 2)) / free.sum((1, 2)).clamp(min=1)
    return (square + 1e-12).sqrt()


def judge(discriminator: Discriminator, x: Tensor, microbatch: Microbatch, t_R: Tensor) -> Verdict:
    whole, patch = discriminator(x, microbatch.x0 * microbatch.known, microbatch.known, t_R, microbatch.context)
    return Verdict(whole.float(), None if patch is None else patch.float())  # float32 under autocast too


def value(verdict: Verdict, microbatch: Microbatch) -> Tensor:
    """(R,) the critic's value c: the whole trajectory's logit and the mean of its real rows' logits."""
    if verdict.patch_RH is None:
        return verdict.whole_R
    rows = microbatch.real[..., 0]
    return verdict.whole_R + (verdict.patch_RH * rows).sum(1) / rows.sum(1)


def mean_loss(loss: Loss, real: Verdict, fake: Verdict, microbatch: Microbatch) -> Tensor:
    """Of whole trajectories, plus that of the real rows; weighted."""
    whole = (loss(real.whole_R, fake.whole_R) * microbatch.weight).mean()
    if real.patch_RH is None or fake.patch_RH is None:
        return whole
    rows = microbatch.real[..., 0]
    return whole + (loss(real.patch_RH, fake.patch_RH) * rows * microbatch.weight[:, None]).sum() / rows.sum()


@torch.no_grad()
def clip_weights(discriminator: Discriminator, limit: float) -> None:
    for parameter in discriminator.parameters():
        parameter.clamp_(-limit, limit)
