"""`ConditionalGAN`: a generative adversarial network of trajectories, trained on a mix of conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import require, require_choice
from ..models.conditioning import ConditionMix
from ..models.one_step import choosing_plugins, interpolate, refuse_sampler, sample_rows
from ..models.sampling import Guidance, check_trajectories, encode_context, encoded_width, sample_batch
from ..networks import NETWORKS, NetworkConfig, TemporalUNetConfig
from ..networks.discriminator import Discriminator, DiscriminatorConfig, Verdict
from ..networks.rows import MAX_ROWS, padded, padding
from ..normalize import Normalizer
from ..training.optimization import LEARNING, adamw, apply_gradients
from ..trajectory import DEFAULT_OPTIONS, Batch, Condition, Guide, Observer, SamplingOptions, TrajectorySpec
from .health import FOLLOW, Health, vital_signs
from .objectives import OBJECTIVES, Loss, Objective
from .regularisers import REGULARISERS, Game

Generate = Callable[["Microbatch"], Tensor]
FINE = 0.02  # normalised units: finer differences are no lack of variety, where the condition decides everything

if TYPE_CHECKING:
    ObjectiveName = str
else:  # what the dict holds
    ObjectiveName = Literal[tuple(OBJECTIVES)]


@dataclass(frozen=True)
class SideConfig:
    """How one of the two players learns: two time scales are two learning rates (Heusel et al. 2017)."""

    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.0, 0.99)
    """Of Adam. No momentum: the game turns, and what was uphill a while ago is not now."""
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        require(self, **LEARNING)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"SideConfig.betas are {self.betas}; two numbers from 0 to less than 1 are expected")


@dataclass(frozen=True)
class GANConfig:
    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    """The generator."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    objective: ObjectiveName = "relativistic"
    """What the two play for."""
    penalties: dict[str, float] | None = None
    """Regularisers of the discriminator and their weights; None is what the objective is known with."""
    energy_score: float = 10.0
    """Weight of the energy score in the generator's loss, which holds it to the data under each condition."""
    discriminator_steps: int = 1
    """Steps of the discriminator, each on a batch of its own, before one of the generator, which draws two samples
    under half of the conditions of the last."""
    generator_learning: SideConfig = field(default_factory=SideConfig)
    discriminator_learning: SideConfig = field(default_factory=SideConfig)
    discriminator_noise: float = 0.0
    """Most noise on what the discriminator sees, in normalised units (Diffusion-GAN: Wang et al. 2023); 0 is none."""
    ema: float = 0.99
    """Decay of the generator's averaged weights, which are the ones that sample."""
    best_of: int = 16
    """Candidates of which the one that a guide likes best is taken."""
    search_steps: int = 0
    """Steps uphill on the guide's score, in the noise that the best candidate is made of."""
    search_rate: float = 0.1
    """Length of such a step, as a share of the noise's own length."""

    def __post_init__(self) -> None:
        require_choice(self, objective=OBJECTIVES)
        require(self, ema=(0, 1), energy_score=(0, 1e6),
                discriminator_steps=(1, 1000), discriminator_noise=(0, math.inf), best_of=(1, 1e6),
                search_steps=(0, 1e6), search_rate=(0, 10))
        for name, weight in (self.penalties or {}).items():
            if name not in REGULARISERS or not 0 <= weight < math.inf:
                raise ValueError(f"GANConfig.penalties has '{name}' with weight {weight}; weights of at least 0 for "
                                 f"some of {', '.join(REGULARISERS)} are expected")

    def unused(self) -> dict[str, str]:
        return {} if self.search_steps else {"search_rate": "refine is 0"}

    @property
    def weights(self) -> dict[str, float]:
        """The regularisers in use."""
        return dict(OBJECTIVES[self.objective].penalties) if self.penalties is None else self.penalties

    def with_network(self, network: NetworkConfig) -> GANConfig:
        return replace(self, network=network)


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


class ConditionalGAN(nn.Module):
    """A `TrajectoryModel` of one network call: noise, known entries and context -> a trajectory.

    Everything outside is in environment units, everything inside is normalised. `context`, `mix`, `context_dropout`
    and `batch_size`, of one step of the discriminator, are as for `Diffusion`.
    """

    levels = 1
    real_logit: Tensor

    def __init__(self, spec: TrajectorySpec, config: GANConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, mix: ConditionMix | None = None, context_dropout: float = 0.1,
                 batch_size: int = 64):
        super().__init__()
        self.mix, self.context_dropout = mix or ConditionMix(), context_dropout
        self.spec, self.config, self.normalizer, self.context = spec, config, normalizer, context
        self.objective, self.batch_size = OBJECTIVES[config.objective], batch_size * config.discriminator_steps
        shape = spec.dim, spec.horizon, encoded_width(context)
        self.network = NETWORKS.made_of(config.network)(*shape, config.network)
        self.ema = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.ema.requires_grad_(False)
        self.discriminator, self.health = Discriminator(*shape, config.discriminator), Health()
        self.register_buffer("real_logit", torch.zeros(()))  # moving average of the patches' logits of data
        self.network_calls = 0

    @property
    def device(self) -> torch.device:
        return self.normalizer.shift_D.device

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """How it samples, in words."""
        return "one call of the generator"

    def optimizers(self) -> dict[str, Optimizer]:
        """Of both sides, each with its own time scale."""
        sides = {"discriminator": (self.discriminator, self.config.discriminator_learning),
                 "generator": (self.network, self.config.generator_learning)}
        return {name: adamw(module, side, side.betas)["network"] for name, (module, side) in sides.items()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator, *,
               guide: Guide | None = None) -> dict[str, Tensor]:
        """The discriminator's steps, each on its own share of the batch, then one of the generator on the last share.

        `guide` scores the generator's samples.

        Raises `NonFinite` before the step that meets a number that is not finite.
        """
        ours, theirs = self.config.generator_learning.max_grad_norm, self.config.discriminator_learning.max_grad_norm
        size, metrics = -(-len(batch.x_BHD) // self.config.discriminator_steps), {}
        for i in range(0, len(batch.x_BHD), size):
            microbatch = self._microbatch(batch, slice(i, i + size), generator)
            with torch.no_grad():
                fake = self._sample(microbatch)
            metrics = step_discriminator(self.discriminator, microbatch, fake, self.objective, self.config.weights,
                                         optimizers["discriminator"], theirs)
            self.real_logit.lerp_(metrics.pop("real_logit"), FOLLOW)
        more = step_generator(self.discriminator, microbatch.twins(), self._sample, self.objective,
                              self.config.energy_score,
                              optimizers["generator"], ours, guide and partial(self._score, guide))
        self.ema.update_parameters(self.network)
        metrics = more | metrics | vital_signs(microbatch.x0, fake, microbatch.free)
        moves = optimizers["generator"].param_groups[0]["lr"] > 0  # else it has a gradient and is not trained
        self.health.record(metrics | {"generator_slope": metrics["generator_slope"] * moves})
        return metrics

    def _microbatch(self, batch: Batch, rows: slice, generator: torch.Generator) -> Microbatch:
        x, real = batch.x_BHD[rows], batch.mask_BHD[rows]
        known = self.mix.sample(self.spec, real, generator)
        kept = torch.rand(len(x), generator=generator) >= self.context_dropout
        context = None if batch.context_BC is None else batch.context_BC[rows]
        weight = x.new_ones(1) if batch.weight_B is None else batch.weight_B[rows]
        return Microbatch(self.normalizer.normalize(x) * real, real, known, encode_context(context, self.context, kept),
                          weight, self.config.discriminator_noise, generator)

    def _sample(self, microbatch: Microbatch) -> Tensor:
        """Samples of the share's conditions, in normalised units; padding is 0, as it is in data."""
        return generate(self.network, microbatch.normal(), microbatch.x0, microbatch.known,
                        microbatch.context) * microbatch.real

    def _score(self, guide: Guide, fake: Tensor, microbatch: Microbatch) -> Tensor:
        return guide(self.normalizer.unnormalize(torch.where(microbatch.free, fake, microbatch.x0)) * microbatch.real)

    @torch.no_grad()
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: int | Sequence[int] = 0, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """(B, N, H, D) in environment units, the known entries exact; as `Diffusion.sample`, in one call.

        A guide chooses among `best_of` candidates of each row, the first of which is what would be drawn without it,
        and may move their noise (`search_steps`). Plug-ins that finish trajectories, such as constraints, do so.
        `observe` sees the result. Raises ValueError for a plug-in that needs a denoiser, and for the options of a
        sampler.
        """
        plugins = choosing_plugins(guide, "a GAN")
        refuse_sampler(options, "a GAN samples in one call of its generator")
        self.health.warn()
        x = sample_batch(self.spec, condition.to(self.device), num_samples, seed, plugins,
                         lambda rows, seeds: sample_rows(self._trajectories, rows, seeds, options.temperature, plugins,
                                                         self.config, self.normalizer))
        if observe is not None:
            observe(x.flatten(0, 1), x.new_zeros(1))
        return x

    def _trajectories(self, z_RHD: Tensor, rows: Condition) -> Tensor:
        """(R, H, D) in environment units; differentiable in z."""
        parts = [self._call(z_RHD[i : i + MAX_ROWS], rows[i : i + MAX_ROWS]) for i in range(0, rows.batch, MAX_ROWS)]
        return torch.cat(parts)

    def _call(self, z_RHD: Tensor, rows: Condition) -> Tensor:
        self.network_calls += 1
        count, known = len(z_RHD), rows.padded(padding(rows.batch))
        x = generate(self.ema, padded(z_RHD), self.normalizer.normalize(known.values_BHD), known.mask_BHD,
                     encode_context(known.context_BC, self.context))
        return torch.where(known.mask_BHD, known.values_BHD, self.normalizer.unnormalize(x))[:count]

    @torch.no_grad()
    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """(R, H) what the discriminator has against each row and its surroundings: softplus(real logit - logit), the
        real logit being that of data on average.

        At least 0; log 2 at that logit. Raises ValueError for a discriminator without patches.
        """
        x_RHD, condition = x_RHD.to(self.device), condition.to(self.device)
        check_trajectories(self.spec, x_RHD, condition)
        parts = [self._patches(x_RHD[i : i + MAX_ROWS], condition[i : i + MAX_ROWS])
                 for i in range(0, len(x_RHD), MAX_ROWS)]
        return F.softplus(self.real_logit - torch.cat(parts))

    def _patches(self, x_RHD: Tensor, condition: Condition) -> Tensor:
        known, x = condition.padded(padding(len(x_RHD))), self.normalizer.normalize(padded(x_RHD))
        values = torch.where(known.mask_BHD, self.normalizer.normalize(known.values_BHD), 0)
        verdict = self.discriminator(x, values, known.mask_BHD, x.new_zeros(1),
                                     encode_context(known.context_BC, self.context))
        if verdict.patch_RH is None:
            raise ValueError("this GAN's discriminator judges whole trajectories only, not rows; train one with "
                             "--model.discriminator.patches, or plan with a fixed arrival")
        return verdict.patch_RH[: len(x_RHD)]


def generate(network: nn.Module, z: Tensor, values: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
    """(R, H, D) in normalised units: noise becomes what is not known, as a way off the straight one."""
    straight = interpolate(values, known)
    x = straight + network(torch.where(known, values, z), straight, known, z.new_ones(1), context)
    return torch.where(known, values, x)


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
