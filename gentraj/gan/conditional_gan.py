"""`ConditionalGAN`: a generative adversarial network of trajectories, and the training steps of its two sides."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config import Fraction, settings
from ..models.conditional import DirectModel, Generate, Microbatch, SearchConfig
from ..models.conditioning import ConditionMix, around_interpolation, encode_context, encoded_width
from ..models.sampling import by_blocks, check_trajectories, mean_score
from ..networks import NETWORKS, NetworkConfig, TemporalUNetConfig
from ..networks.discriminator import Discriminator, DiscriminatorConfig
from ..normalize import Normalizer
from ..randomness import Seeds
from ..training.optimization import MovingAverage, Updates, adamw, waits_to_read
from ..training.step import TrainingStep
from ..trajectory import Condition, Guide, TrajectorySpec
from .objectives import OBJECTIVES, ObjectiveName, RegulariserName, SideConfig, adversarial_loss, step_discriminator

AVERAGE_WEIGHT = 0.02  # weight of a step in the moving averages
FIRST_WARNING_STEP = 50  # the first step at which a dead or collapsed generator is reported
SETTLED_STEP = 500  # the first step at which all symptoms are: no training starts healthy
LOOK_EVERY = 50  # steps on an accelerator
COVERAGE_NEIGHBOURS = 5
COPY_FRACTION = 0.01  # samples are copies if they are nearer than this fraction of the mean distance between data


class GANWarning(UserWarning):
    """A GAN's training shows a symptom; the message names it and a remedy."""


class Symptom(NamedTuple):
    """A range [low, high] outside of which a metric's moving average is a symptom, and the message about it.

    `early` is the wider range before the game has settled. None of the healthy trainings leaves it after 50 steps,
    while some start with little variety: a DiT ignores its noise at first.
    """

    metric: str
    low: float
    high: float
    message: str
    early: tuple[float, float] = (-float("inf"), float("inf"))


SYMPTOMS = (
    Symptom("spread", 0.4, 2.5, "the samples spread {value:.2g} times as wide as the data: the generator has collapsed "
            "or diverged; set the objective to relativistic with r1 and r2, or lower "
            "generator_learning.learning_rate", early=(0.1, 10.0)),
    Symptom("variety", 0.2, float("inf"), "two samples of one condition are {value:.2g} times as far apart as they are "
            "from the data: the generator almost ignores its noise; set energy_score to 10, or raise "
            "generator_learning.learning_rate"),
    Symptom("duplicates", 0.0, 0.5, "{value:.0%} of the samples are copies of others: the generator has collapsed; "
            "set the objective to relativistic with r1 and r2, and keep discriminator.minibatch_std",
            early=(0.0, 0.95)),
    Symptom("coverage", 0.15, 1.0, "only {value:.0%} of the data have a sample nearby: modes are missing; train "
            "longer, or set the objective to relativistic with r1 and r2"),
    Symptom("generator_slope", 1e-3, float("inf"), "the slope of the generator's objective is {value:.1g}: it is "
            "saturated, or the generator is not trained; set the objective to non-saturating or relativistic, and "
            "generator_learning.learning_rate to more than 0", early=(1e-5, float("inf"))),
)


class Health(nn.Module):
    """Moving averages of the symptoms' metrics. They are saved with the weights, so that a loaded GAN warns, too."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(len(SYMPTOMS)))
        self.steps = Updates()
        self._warned: set[str] = set()

    def record(self, metrics: Mapping[str, Tensor]) -> None:
        """Updates the averages with the metrics of one step, and warns of new symptoms; on an accelerator, which has
        to be waited for, it looks for them once in `LOOK_EVERY` steps."""
        now = torch.stack([metrics[s.metric].detach().float() for s in SYMPTOMS]).to(self.average)
        steps = self.steps.next()
        self.average.lerp_(now, max(AVERAGE_WEIGHT, 1 / steps))
        if steps % LOOK_EVERY == 0 or not waits_to_read(self.average):
            self.warn()

    def warn(self) -> None:
        """Warns once of each symptom."""
        for metric, message in self.symptoms().items():
            if metric not in self._warned:
                self._warned.add(metric)
                warnings.warn(f"step {self.steps.done} of the GAN: {message}", GANWarning, stacklevel=3)

    def symptoms(self) -> dict[str, str]:
        """The present symptoms: metric -> message with symptom and remedy."""
        steps, found = self.steps.done, dict[str, str]()
        if steps < FIRST_WARNING_STEP:
            return found
        for symptom, value in zip(SYMPTOMS, self.average.tolist(), strict=True):
            low, high = symptom.early
            if steps >= SETTLED_STEP:
                low, high = symptom.low, symptom.high
            if not low <= value <= high:
                found[symptom.metric] = symptom.message.format(value=value)
        return found


@torch.no_grad()
def vital_signs(real: Tensor, fake: Tensor, free: Tensor) -> dict[str, Tensor]:
    """Metrics of one batch of data and samples (R, H, D), in normalised units, that have the same conditions.

    "spread" is the root mean variance of the samples over the batch, divided by that of the data. "duplicates" is the
    fraction of the samples that have a copy. "coverage" is the fraction of the data with a sample nearer than their 5th
    neighbour (Naeem et al. 2020, equation 9).
    """
    def spread(x: Tensor) -> Tensor:
        mean = (x * free).sum(0) / free.sum(0).clamp(min=1)
        return (((x - mean) ** 2 * free).sum() / free.sum().clamp(min=1)).sqrt()

    x, g = real.flatten(1).float(), fake.flatten(1).float()
    free_X = free.flatten(1).float()
    with torch.autocast(real.device.type, enabled=False):  # differences of squares need full precision
        between, among = distances(x, x, free_X), distances(g, g, free_X)
        across = distances(x, g, free_X)
    k = min(COVERAGE_NEIGHBOURS + 1, len(x))  # the nearest neighbour is the trajectory itself
    radius = between.topk(k, largest=False).values[:, -1]  # kthvalue is not deterministic on CUDA
    copies = among.fill_diagonal_(torch.inf).amin(1) < COPY_FRACTION * between.mean()
    return {"spread": spread(fake) / spread(real).clamp(min=1e-12), "duplicates": copies.float().mean(),
            "coverage": (across.amin(1) <= radius).float().mean()}


def distances(x_RX: Tensor, y_RX: Tensor, free_RX: Tensor) -> Tensor:
    """The root mean square difference (R, R) of all pairs of rows, over the entries that are free in both."""
    x, y = x_RX * free_RX, y_RX * free_RX
    both = free_RX @ free_RX.T
    square = (x**2) @ free_RX.T + free_RX @ (y**2).T - 2 * x @ y.T
    return (square.clamp(min=0) / both.clamp(min=1)).sqrt()


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
    minimises its energy score alone, which takes less than half the time; samples become less precise."""
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


class ConditionalGAN(DirectModel):
    """A `TrajectoryModel` that samples in one call of its generator: noise, known entries and context -> a trajectory.

    Its methods take and return environment units; its networks see normalised ones. `context`, `conditioning` and
    `context_dropout` are those of `Diffusion`, and `batch_size` is the number of windows in a step of the
    discriminator. Raises ValueError for a normaliser of another width than a timestep's.
    """

    config: GANConfig
    NAME = "a GAN"
    real_logit: Tensor

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
        if config.adversarial_interval > 1:
            self.updates = Updates()

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers of both sides, "discriminator" and "generator"."""
        sides = {"discriminator": (self.discriminator, self.config.discriminator_learning),
                 "generator": (self.network, self.config.generator_learning)}
        return {name: adamw(module, side, side.betas) for name, (module, side) in sides.items()}

    def update(self, step: TrainingStep, *, guide: Guide | None = None) -> dict[str, Tensor]:
        """The discriminator's steps, each on a microbatch, and then one step of the generator on the last microbatch.

        Returns metrics, scalars. `guide` adds its mean score of the generator's samples to the objective. Where the
        sides do not play (`adversarial_interval`), there is the generator's step on the last microbatch alone. Raises
        `NonFinite` before an optimiser step on a loss or gradient that is not finite.
        """
        plays = self._plays()
        number = len(step.batch.x_BHD)
        size = -(-number // self.config.discriminator_steps)
        metrics, parts = {}, [slice(i, i + size) for i in range(0, number, size)]
        if not plays:
            parts = parts[-1:]
        for rows in parts:
            microbatch = self.microbatch(step.on(step.batch.take(rows)))
            if plays:
                with torch.no_grad():
                    fake = self._sample(microbatch)
                metrics = step_discriminator(self.discriminator, microbatch, fake, self.objective, self.penalties, step,
                                             self.config.discriminator_learning.max_grad_norm)
                real_logit = metrics.pop("real_logit").to(self.real_logit)
                self.real_logit.lerp_(real_logit, AVERAGE_WEIGHT)
        loss, more = self.generator_loss(microbatch.twins(), guide, plays=plays)
        norm = step.descend(loss, "generator", self.config.generator_learning.max_grad_norm)
        step.follow(self.ema, self.network)
        more["generator_grad_norm"] = norm.detach()
        if not plays:
            return more
        metrics = more | metrics | vital_signs(microbatch.x0, fake, microbatch.free)
        trained = (norm > 0) * (step.optimizers["generator"].param_groups[0]["lr"] > 0)
        self.health.record(metrics | {"generator_slope": metrics["generator_slope"] * trained})
        return metrics

    def _plays(self) -> bool:
        """Counts an update, and says whether the two sides play in it: in the first, and then in every so many."""
        if self.config.adversarial_interval == 1:
            return True
        return self.updates.next() % self.config.adversarial_interval == 1

    def _sample(self, microbatch: Microbatch) -> Tensor:
        """A sample for each condition of the microbatch, in normalised units; padding is 0, as it is in data."""
        z = microbatch.normal()
        return around_interpolation(self.network, z, z.new_ones(1), microbatch.x0, microbatch.known,
                                    microbatch.context) * microbatch.real

    def generator_loss(self, twins: Microbatch, guide: Guide | None = None, *,
                       plays: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted energy score, minus the guide's mean score, plus, where the generator `plays` against the
        discriminator, the objective's loss: a scalar. Returns it and metrics.

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
        return total, metrics

    def generates(self, rows: Condition) -> Generate:
        self.health.warn()
        return self._trajectories

    def _trajectories(self, z_RHD: Tensor, rows: Condition) -> Tensor:
        """Trajectories (R, H, D) in environment units, differentiable in the noise z."""
        def trajectories(z: Tensor, known: Condition) -> Tensor:
            self.network_calls += 1
            values = self.normalizer.normalize(known.values_BHD)
            x = around_interpolation(self.ema.module, z, z.new_ones(1), values, known.mask_BHD,
                                     encode_context(known.context_BC, self.context))
            return torch.where(known.mask_BHD, known.values_BHD, self.normalizer.unnormalize(x))

        return by_blocks(trajectories, z_RHD, rows)

    @torch.no_grad()
    def ood_score(self, x_RHD: Tensor, condition: Condition, seeds: Seeds) -> Tensor:
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
