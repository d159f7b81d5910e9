"""The options that `gentraj sample`, `evaluate` and `export` share."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.model import GridName, SamplerName
from ..trajectory import SamplingOptions


@dataclass(frozen=True)
class SamplerOptions:
    """Settings of the sampler; by default those of the run."""

    sampler: SamplerName | None = None
    """The sampler, instead of the run's own."""
    grid: GridName | None = None
    """The spacing of the sampling steps, instead of the run's own."""
    eta: float | None = None
    """Amount of noise that is added while sampling, from 0 (deterministic) to 1, instead of the run's own."""

    def options(self, steps: int | None = None, temperature: float = 1.0) -> SamplingOptions:
        """These settings with a number of sampling steps and a temperature."""
        return SamplingOptions(self.sampler, steps, self.grid, self.eta, temperature)
