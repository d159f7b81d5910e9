"""What generative models share: their settings, the windows of an optimiser step, and training on a mix of conditions.

A guide of a model without a sampler chooses the best of several candidates and improves its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from einops import rearrange
from pydantic import PositiveInt
from torch import Tensor, nn

from ..config import settings
from ..device import to_device
from ..normalize import Normalizer
from ..randomness import Noise, Seeds, unfold
from ..training.optimization import MovingAverage
from ..training.step import TrainingStep
from ..trajectory import (
    DEFAULT_OPTIONS,
    Batch,
    Condition,
    Guide,
    Observer,
    SamplingOptions,
    TrajectorySpec,
    refuse_options,
)
from .conditioning import ConditionMix, encode_context, known_to_all
from .sampling import (
    Checks,
    Guidance,
    Plugin,
    Preference,
    SampledRows,
    as_plugins,
    by_blocks,
    mean_score,
    placed,
    sample_batch,
    without_gradient,
)


@settings
class GeneratorConfig:
    """Base class of the settings of generators.

    A subclass also has a `network`, its settings.
    """

    DIRECT: ClassVar[bool] = False
    """Whether the model samples in one or two network calls, without a sampler and its steps."""
    CONTEXT_DROPOUT: ClassVar[float] = 0.1
    """The fraction of the training trajectories whose context is dropped, unless the model's owner decides another."""
    BATCH_SIZE: ClassVar[int] = 64
    """The number of windows in the batch of a training step, unless the model's owner decides another."""

    @property
    def max_steps(self) -> int | None:
        """The largest number of sampling steps that the model takes; None is any number."""
        return None

    def with_network(self, network: object) -> Self:
        """The settings with those of another network."""
        return replace(self, network=network)

    def from_one_noise(self) -> Self:
        """The settings by which a sample follows from its first noise alone: none is added or chosen among later."""
        return self


@settings
class SearchConfig(GeneratorConfig):
    """Base class of the settings of models without a sampler: how a guide chooses their samples."""

    _: KW_ONLY
    best_of: PositiveInt = 16
    """Number of candidates from which a guide chooses the best one."""

    REMOVED: ClassVar[dict[str, object]] = {"search_steps": 0, "search_rate": ...}
    DIRECT: ClassVar[bool] = True

    def from_one_noise(self) -> Self:
        return replace(self, best_of=1)


@dataclass(frozen=True)
class Microbatch:
    """The windows of one optimiser step, in normalised units."""

    x0: Tensor
    """Data (R, H, D), 0 where padded."""
    real: Tensor
    """True (R, H, D) where an entry is no padding."""
    known: Tensor
    """True (R, H, D) where the condition knows an entry."""
    context: Tensor | None
    """Encoded contexts, (R, C) or (1, C)."""
    weight: Tensor
    """Weights in the loss: (R,), or (1,) if all are equal."""
    generator: torch.Generator

    @cached_property
    def free(self) -> Tensor:
        """True (R, H, D) where an entry is real and unknown."""
        return self.real & ~self.known

    def held(self, x: Tensor) -> Tensor:
        """x (R, H, D) with clean known entries, and 0 as padding."""
        return torch.where(self.known, self.x0, x) * self.real

    def average(self, loss: Tensor) -> Tensor:
        """The weighted mean of a loss (R, H, D) over the free entries, a scalar."""
        total = (loss * self.free * self.weight[:, None, None]).sum()
        return total / self.free.sum().clamp(min=1)

    def take(self, index_R: Tensor) -> Microbatch:
        """The windows with these indices."""
        context, weight = self.context, self.weight
        if context is not None and len(context) > 1:
            context = context[index_R]
        if len(weight) > 1:
            weight = weight[index_R]
        return replace(self, x0=self.x0[index_R], real=self.real[index_R], known=self.known[index_R], context=context,
                       weight=weight)

    def twins(self) -> Microbatch:
        """The first half of the windows, twice: two samples of each condition can then be compared."""
        return self.take(torch.arange((len(self.x0) + 1) // 2, device=self.x0.device).repeat(2))

    def normal(self) -> Tensor:
        return to_device(torch.randn(self.x0.shape, generator=self.generator), self.x0.device)


class ConditionalModel(nn.Module):
    """Base class of generative models that are trained on windows with random known entries.

    `normalizer` normalises windows and `context` contexts. `conditioning` says which entries are known in a training
    step, where a fraction `context_dropout` of the windows is without its context. Raises ValueError for a normaliser
    of another width than a timestep's, and for the entries of a goal that an observation does not have.
    """

    network: nn.Module
    ema: MovingAverage

    def __init__(self, spec: TrajectorySpec, normalizer: Normalizer, context: Normalizer | None,
                 conditioning: ConditionMix | None, context_dropout: float, batch_size: int):
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        self.conditioning, self.context_dropout = conditioning or ConditionMix(), context_dropout
        self.normalizer, self.context = normalizer.require(spec.dim), context
        known_to_all(self.conditioning, spec, self.device)  # raises now what training would raise
        self.network_calls = 0

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.normalizer.shift_D.device

    def microbatch(self, step: TrainingStep) -> Microbatch:
        """The normalised windows of a training step, with random known entries and encoded contexts."""
        batch = step.batch
        known = self.conditioning.sample(self.spec, batch.mask_BHD, step.generator)
        return Microbatch(self.normalizer.normalize_windows(batch), batch.mask_BHD, known,
                          self.training_context(batch, step.generator), batch.weights(), step.generator)

    def learn(self, step: TrainingStep, loss: Tensor, max_norm: float) -> dict[str, Tensor]:
        """One optimiser step of the network on a scalar loss, which the average of its weights follows; metrics."""
        norm = step.descend(loss, "network", max_norm)
        step.follow(self.ema, self.network)
        return {"loss": loss.detach(), "grad_norm": norm.detach()}

    def training_context(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The contexts of a batch, encoded as (B, C + 1), of which a fraction `context_dropout` is left out."""
        kept_B = None
        if self.context_dropout:
            kept_B = torch.rand(len(batch.x_BHD), generator=generator) >= self.context_dropout
        return encode_context(batch.context_BC, self.context, kept_B)

    def own_score(self, guide: Guide, x: Tensor, rows: Microbatch, batch: Batch) -> Tensor:
        """The guide's mean score, a scalar, of normalised trajectories x (B, H, D) that the model made.

        The guide sees them in environment units, with the data in place of known entries and padding.
        """
        own = torch.where(rows.free, self.normalizer.unnormalize(x), batch.x_BHD)
        return mean_score(guide, own, rows.weight)


Generate = Callable[[Tensor, Condition], Tensor]  # noise z_RHD and conditions -> x_RHD in environment units


class DirectModel(ConditionalModel):
    """Base class of models that sample without a sampler. A subclass has a `config` and implements `generates`."""

    config: SearchConfig
    NAME: ClassVar[str]
    """The model in messages, such as "a GAN"."""
    CALLS: ClassVar[str] = "one call"
    """The network calls of a sample, in messages."""

    def generates(self, rows: Condition) -> Generate:
        """The map from noise to trajectories of the conditions `rows`, or of each of them several times in a row."""
        raise NotImplementedError

    def sampling(self, options: SamplingOptions = DEFAULT_OPTIONS) -> str:
        """A description of how the model samples, for messages and reports."""
        return f"{self.CALLS} of {self.NAME}"

    @without_gradient
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Guidance = None,
               seed: Seeds | None = None, options: SamplingOptions = DEFAULT_OPTIONS,
               observe: Observer | None = None) -> Tensor:
        """Samples (B, N, H, D) in environment units, with exact known entries, as `Diffusion.sample` does.

        `options.temperature` scales the noise: at 0 the sample is that without noise. A guide chooses among `best_of`
        candidates for each trajectory, the first of which is the sample without a guide. Plug-ins that finish
        trajectories, such as constraints, finish the chosen ones. `observe` sees the result. Raises ValueError for a
        plug-in that needs a denoiser, and for options of a sampler.
        """
        plugins = choosing_plugins(guide, self.NAME)
        refuse_options(options, f"{self.NAME} samples in {self.CALLS} of its network")

        def sampled(rows: Condition, noise: Noise, checks: Checks) -> Tensor:
            return sample_rows(self.generates(rows), rows, noise, options.temperature, plugins, self.config,
                               self.normalizer, checks)

        return sample_batch(self.spec, placed(condition, self.device), num_samples, seed, plugins, sampled, observe)


def choosing_plugins(guide: Guidance, model: str) -> list[Plugin]:
    """The plug-ins of a guide, for a model without a denoiser: a function becomes a `Preference`.

    Raises ValueError for a plug-in that needs a denoiser, with `model` as the name of the model.
    """
    plugins = as_plugins(guide, Preference)
    for plugin in plugins:
        if plugin.needs_denoiser:
            raise ValueError(f"{type(plugin).__name__} changes what a model denoises, and {model} does not denoise; "
                             "give a function of clean trajectories, constraints or no guidance, or use a diffusion "
                             "model")
    return plugins


def sample_rows(generate: Generate, rows: Condition, noise: Noise, temperature: float,
                plugins: Sequence[Plugin], config: SearchConfig, normalizer: Normalizer,
                checks: Checks) -> Tensor:
    """Samples trajectories (R, H, D), in environment units, from their noise; plug-ins choose and finish them."""
    choosing = [plugin for plugin in plugins if type(plugin).prefer is not Plugin.prefer]
    if choosing:
        x = preferred(generate, rows, noise, temperature, choosing, config, checks)
    else:
        z = to_device(noise.scaled(temperature, *rows.values_BHD.shape[1:]), rows.values_BHD.device)
        x = generate(z, rows)
    for plugin in plugins:
        x = plugin.finish(x, SampledRows(normalizer, rows, checks))
    return torch.where(rows.mask_BHD, rows.values_BHD, x)


def preferred(generate: Generate, rows: Condition, noise: Noise, temperature: float, plugins: Sequence[Plugin],
              config: SearchConfig, checks: Checks) -> Tensor:
    """The best (R, H, D) of `best_of` candidates for each row, by the plug-ins' scores.

    The first candidate of a row is sampled from the row's own noise. Of several best candidates the first is taken.
    """
    own = noise.derived(lambda seed: [seed, *unfold(config.best_of - 1, seed, 1)])
    z = to_device(own.scaled(temperature, *rows.values_BHD.shape[1:]), rows.values_BHD.device)
    x = generate(z, rows.repeat(config.best_of))
    best_R = rearrange(preference(plugins, x, checks), "(r n) -> r n", n=config.best_of).argmax(1)
    return x[torch.arange(rows.batch, device=z.device) * config.best_of + best_R]


def preference(plugins: Sequence[Plugin], x_RHD: Tensor, checks: Checks) -> Tensor:
    """The sum (R,) of the plug-ins' scores. Each plug-in sees a copy of its own, which it may change."""
    def total(x: Tensor) -> Tensor:
        scores = [score for plugin in plugins if (score := plugin.prefer(x.clone())) is not None]
        return torch.stack(scores).sum(0)

    return checks.scores(by_blocks(total, x_RHD))
