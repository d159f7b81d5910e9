"""Options of every command that samples."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.model import GridName, SamplerName
from ..trajectory import SamplingOptions


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample where it is not as the run says."""

    sampler: SamplerName | None = None
    """Another sampler than the run's."""
    grid: GridName | None = None
    """Another step grid than the run's."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1."""

    def options(self, steps: int | None = None, temperature: float = 1.0) -> SamplingOptions:
        """These, with as many steps and that temperature."""
        return SamplingOptions(self.sampler, steps, self.grid, self.eta, temperature)
