"""`ConditionalGAN`: a generative adversarial network of trajectories, and the training steps of its two sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..models.conditioning import ConditionMix, encode_context, encoded_width, interpolate
from ..models.microbatch import Microbatch
from ..models.plugin import mean_score
from ..models.sample_batch import by_blocks, check_trajectories
from ..models.search import Generate, OneCallModel
from ..models.settings import SearchConfig
from ..networks import NETWORKS, NetworkConfig, TemporalUNetConfig
from ..networks.discriminator import Discriminator, DiscriminatorConfig
from ..normalize import Normalizer
from ..training.optimization import MovingAverage, adamw, apply_gradients
from ..training.parallel import mean_over_processes
from ..trajectory import Batch, Condition, Guide, TrajectorySpec
from .discrimination import SideConfig, adversarial_loss, step_discriminator
from .health import AVERAGE_WEIGHT, Health, vital_signs
from .objectives import OBJECTIVES, ObjectiveName, RegulariserName

LEAST_DISTANCE = 0.02  # normalised units: "variety" ignores less, for conditions that leave no freedom


@settings
class GANConfig(SearchConfig):
    """Settings of a GAN: its two networks, their losses, how they are trained, and how a guide chooses samples."""

    network: NetworkConfig = field(default_factory=TemporalUNetConfig)
    """The generator."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """The discriminator, a network of residual convolutions over time."""
    objective: ObjectiveName = "relativistic"
    """Adversarial losses of the discriminator and the generator."""
    penalties: dict[RegulariserName, NonNegativeFloat] | None = None
    """Regularisers of the discriminator and their weights; None takes the defaults of the objective."""
    energy_score: NonNegativeFloat = 10.0
    """Weight of the energy score in the generator's loss, which fits the samples to the data under each condition."""
    discriminator_steps: PositiveInt = 1
    """Steps of the discriminator, each on a batch of its own, before each step of the generator. The generator draws
    two samples for each of half the conditions of the last batch."""
    adversarial_interval: PositiveInt = 1
    """One update in this many trains the discriminator, and the generator against it. In the others the generator
    minimises its energy score alone, which takes less than half the time."""
    generator_learning: SideConfig = field(default_factory=SideConfig)
    """How the generator is trained."""
    discriminator_learning: SideConfig = field(default_factory=SideConfig)
    """How the discriminator is trained."""
    ema: Fraction = 0.99
    """Decay of the exponential moving average of the generator's weights, which is used for sampling."""

    def __post_init__(self) -> None:
        if self.adversarial_interval > 1 and not self.energy_score:
            raise ValueError(f"GANConfig.adversarial_interval is {self.adversarial_interval}, and energy_score is 0, "
                             "so that the generator would learn from nothing in most updates; give an "
                             "adversarial_interval of 1, or an energy_score such as 10")


class ConditionalGAN(OneCallModel):
    """A `TrajectoryModel` that samples in one call of its generator: noise, known entries and context -> a trajectory.

    Its methods take and return environment units; its networks see normalised ones. `context`, `conditioning` and
    `context_dropout` are those of `Diffusion`, and `batch_size` is the number of windows in a step of the
    discriminator. Raises ValueError for a normaliser of another width than a timestep's.
    """

    config: GANConfig
    NAME = "a GAN"
    real_logit: Tensor
    updates: Tensor

    def __init__(self, spec: TrajectorySpec, config: GANConfig, normalizer: Normalizer,
                 context: Normalizer | None = None, *, conditioning: ConditionMix | None = None,
                 context_dropout: float = GANConfig.CONTEXT_DROPOUT,
                 batch_size: int = GANConfig.BATCH_SIZE):
        super().__init__(spec, normalizer, context, conditioning, context_dropout,
                         batch_size * config.discriminator_steps)
        self.config, self.objective = config, OBJECTIVES[config.objective]
        self.penalties = self.objective.penalties if config.penalties is None else config.penalties
        shape = spec.dim, spec.horizon, encoded_width(context)
        self.network = NETWORKS.made_of(config.network)(*shape, config.network)
        self.ema = MovingAverage(self.network, config.ema)
        self.discriminator, self.health = Discriminator(*shape, config.discriminator), Health()
        self.register_buffer("real_logit", torch.zeros(()))  # moving average of the patch logits of data
        if config.adversarial_interval > 1:  # a buffer, so that a resumed training plays in the same updates
            self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of both sides, "discriminator" and "generator"."""
        sides = {"discriminator": (self.discriminator, self.config.discriminator_learning),
                 "generator": (self.network, self.config.generator_learning)}
        return {name: adamw(module, side, side.betas) for name, (module, side) in sides.items()}

    def update(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator, *,
               guide: Guide | None = None) -> dict[str, Tensor]:
        """The discriminator's steps, each on a microbatch, and then one step of the generator on the last microbatch.

        Returns metrics, scalars. `guide` adds its mean score of the generator's samples to the objective. Where the
        sides do not play (`adversarial_interval`), there is the generator's step on the last microbatch alone. Raises
        `NonFinite` before an optimiser step on a loss or gradient that is not finite.
        """
        plays = self._plays()
        size = -(-len(batch.x_BHD) // self.config.discriminator_steps)
        metrics, parts = {}, [slice(i, i + size) for i in range(0, len(batch.x_BHD), size)]
        if not plays:
            parts = parts[-1:]
        for rows in parts:
            microbatch = self.microbatch(batch.take(rows), generator)
            if plays:
                with torch.no_grad():
                    fake = self._sample(microbatch)
                metrics = step_discriminator(self.discriminator, microbatch, fake, self.objective, self.penalties,
                                             optimizers["discriminator"],
                                             self.config.discriminator_learning.max_grad_norm)
                real_logit = mean_over_processes(metrics.pop("real_logit")).to(self.real_logit)
                self.real_logit.lerp_(real_logit, AVERAGE_WEIGHT)
        more = self.step_generator(microbatch.twins(), optimizers["generator"], guide, plays=plays)
        self.ema.update_parameters(self.network)
        if not plays:
            return more
        metrics = more | metrics | vital_signs(microbatch.x0, fake, microbatch.free)
        trained = (metrics["generator_grad_norm"] > 0) * (optimizers["generator"].param_groups[0]["lr"] > 0)
        self.health.record(metrics | {"generator_slope": metrics["generator_slope"] * trained})
        return metrics

    def _plays(self) -> bool:
        """Counts an update, and says whether the two sides play in it: in the first, and then in every so many."""
        if self.config.adversarial_interval == 1:
            return True
        self.updates += 1
        return int(self.updates) % self.config.adversarial_interval == 1

    def _sample(self, microbatch: Microbatch) -> Tensor:
        """A sample for each condition of the microbatch, in normalised units; padding is 0, as it is in data."""
        return generate(self.network, microbatch.normal(), microbatch.x0, microbatch.known,
                        microbatch.context) * microbatch.real

    def step_generator(self, twins: Microbatch, optimizer: Optimizer, guide: Guide | None = None, *,
                       plays: bool = True) -> dict[str, Tensor]:
        """One optimiser step of the generator on the weighted energy score, minus the guide's mean score, and where it
        `plays` against the discriminator on the objective. Returns its metrics, which are scalars.

        The metric "variety" is the distance between two samples of one condition, divided by their distance from the
        data: it is 1 if the conditional distribution is right. Those of `adversarial_loss` are there where it plays.
        """
        fake = self._sample(twins)
        score, variety = energy_score(twins, fake)
        total = self.config.energy_score * score
        metrics = {"energy_score": score.detach(), "variety": variety.detach()}
        if plays:
            loss, slope = adversarial_loss(self.discriminator, twins, fake, self.objective)
            total = total + loss
            metrics |= {"generator_loss": loss.detach(), "generator_slope": slope}
        if guide is not None:
            x = self.normalizer.unnormalize(torch.where(twins.free, fake, twins.x0)) * twins.real
            total = total - mean_score(guide, x, twins.weight)
        norm = apply_gradients(total, optimizer, self.config.generator_learning.max_grad_norm)
        return metrics | {"generator_grad_norm": norm.detach()}

    def generates(self, rows: Condition) -> Generate:
        self.health.warn()
        return self._trajectories

    def _trajectories(self, z_RHD: Tensor, rows: Condition) -> Tensor:
        """Trajectories (R, H, D) in environment units, differentiable in the noise z."""
        def trajectories(z: Tensor, known: Condition) -> Tensor:
            self.network_calls += 1
            x = generate(self.ema.module, z, self.normalizer.normalize(known.values_BHD), known.mask_BHD,
                         encode_context(known.context_BC, self.context))
            return torch.where(known.mask_BHD, known.values_BHD, self.normalizer.unnormalize(x))

        return by_blocks(trajectories, z_RHD, rows)

    @torch.no_grad()
    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """The ood score (R, H), by the discriminator's logit of each timestep and its surroundings.

        It is softplus(real logit - logit), where the real logit is the average for data: it is at least 0, and log 2
        at the real logit. Raises ValueError for a discriminator without patches.
        """
        condition = condition.to(self.device)
        x_RHD = check_trajectories(self.spec, x_RHD.to(self.device), condition)
        return F.softplus(self.real_logit - by_blocks(self._patches, x_RHD, condition))

    def _patches(self, x_RHD: Tensor, known: Condition) -> Tensor:
        """The discriminator's logits (R, H) of timesteps and their surroundings."""
        values = torch.where(known.mask_BHD, self.normalizer.normalize(known.values_BHD), 0)
        output = self.discriminator(self.normalizer.normalize(x_RHD), values, known.mask_BHD, values.new_zeros(1),
                                    encode_context(known.context_BC, self.context))
        if output.patch_RH is None:
            raise ValueError("this GAN's discriminator judges whole trajectories only, not single timesteps; train one "
                             "with discriminator.patches, or plan with a fixed arrival")
        return output.patch_RH


def generate(network: nn.Module, z: Tensor, values: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
    """Turns noise z into trajectories (R, H, D), all in normalised units.

    The network returns the difference from the interpolation between the known entries.
    """
    interpolated = interpolate(values, known)
    x = interpolated + network(torch.where(known, values, z), interpolated, known, z.new_ones(1), context)
    return torch.where(known, values, x)


def energy_score(twins: Microbatch, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The energy score E |G - x| - E |G - G'| / 2 and the variety E |G - G'| / E |G - x|.

    |.| is the root mean square over the free entries. The energy score is a proper scoring rule (Gneiting & Raftery
    2007, equation 21): it is minimal for the conditional distribution of the data, whatever the discriminator judges.
    It is the objective of Cramer GANs (Bellemare et al. 2017).
    """
    (x, _), (g, h) = twins.x0.chunk(2), fake.chunk(2)
    free, _ = twins.free.chunk(2)
    weight = twins.weight[: len(x)]
    off = ((distance(g, x, free) + distance(h, x, free)) * weight).mean() / 2
    apart = (distance(g, h, free) * weight).mean()
    return off - apart / 2, (apart + LEAST_DISTANCE) / (off + LEAST_DISTANCE)


def distance(x: Tensor, y: Tensor, free: Tensor) -> Tensor:
    """The root mean square difference (R,) of the free entries."""
    square = ((x - y) ** 2 * free).sum((1, 2)) / free.sum((1, 2)).clamp(min=1)
    return (square + 1e-12).sqrt()
