"""What the settings of every generator declare, so that their owner need not know the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class GeneratorConfig:
    """Base class of the settings of generators.

    A subclass also has a `network`, its settings, and `with_network`, which returns the settings with another network.
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
