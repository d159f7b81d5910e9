"""What generative models share: their settings, the windows of an optimiser step, and `ConditionalModel`, which is
trained on a mix of conditions."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ..config import settings
from ..normalize import Normalizer
from ..trajectory import Batch, Guide, TrajectorySpec
from .conditioning import ConditionMix, encode_context
from .plugin import mean_score


@settings
class GeneratorConfig:
    """Base class of the settings of generators.

    A subclass also has a `network`, its settings.
    """

    ONE_CALL: ClassVar[bool] = False
    """Whether the model samples in one network call, so that it has no sampling steps."""
    FOR_GUIDES: ClassVar[tuple[str, ...]] = ()
    """The settings that have an effect only where a guide shapes the samples."""
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


@settings
class SearchConfig(GeneratorConfig):
    """Base class of the settings of models of one network call: how a guide chooses and improves their samples."""

    _: KW_ONLY
    best_of: PositiveInt = 16
    """Number of candidates from which a guide chooses the best one."""
    search_steps: NonNegativeInt = 0
    """Gradient steps on the guide's score that improve the noise of the best candidate."""
    search_rate: NonNegativeFloat = 0.1
    """Length of a search step, relative to the length of the noise."""

    ONE_CALL: ClassVar[bool] = True
    FOR_GUIDES: ClassVar[tuple[str, ...]] = ("best_of", "search_steps", "search_rate")


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
        return torch.randn(self.x0.shape, generator=self.generator).to(self.x0.device)


class ConditionalModel(nn.Module):
    """Base class of generative models that are trained on windows with random known entries.

    `normalizer` normalises windows and `context` contexts. `conditioning` says which entries are known in a training
    step, where a fraction `context_dropout` of the windows is without its context. Raises ValueError for a normaliser
    of another width than a timestep's.
    """

    def __init__(self, spec: TrajectorySpec, normalizer: Normalizer, context: Normalizer | None,
                 conditioning: ConditionMix | None, context_dropout: float, batch_size: int):
        super().__init__()
        self.spec, self.batch_size = spec, batch_size
        self.conditioning, self.context_dropout = conditioning or ConditionMix(), context_dropout
        self.normalizer, self.context = normalizer.require(spec.dim), context
        self.network_calls = 0

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return self.normalizer.shift_D.device

    def microbatch(self, batch: Batch, generator: torch.Generator) -> Microbatch:
        """The normalised windows of a training step, with random known entries and encoded contexts."""
        known = self.conditioning.sample(self.spec, batch.mask_BHD, generator)
        return Microbatch(self.normalizer.normalize_windows(batch), batch.mask_BHD, known,
                          self.training_context(batch, generator), batch.weights(), generator)

    def training_context(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """The contexts of a batch, encoded as (B, C + 1), of which a fraction `context_dropout` is left out."""
        kept_B = torch.rand(len(batch.x_BHD), generator=generator) >= self.context_dropout
        return encode_context(batch.context_BC, self.context, kept_B)

    def own_score(self, guide: Guide, x: Tensor, rows: Microbatch, batch: Batch) -> Tensor:
        """The guide's mean score, a scalar, of normalised trajectories x (B, H, D) that the model made.

        The guide sees them in environment units, with the data in place of known entries and padding.
        """
        own = torch.where(rows.free, self.normalizer.unnormalize(x), batch.x_BHD)
        return mean_score(guide, own, rows.weight)
