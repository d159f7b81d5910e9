"""What the settings of every generator declare, so that their owner need not know the family."""

from __future__ import annotations

from dataclasses import KW_ONLY, replace
from typing import ClassVar, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from ..config import settings


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
