"""Options of every command that samples."""

from __future__ import annotations

from dataclasses import dataclass

from ..diffusion.settings import GridName, SamplerName
from ..runs import Run


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample where it is not as the run says."""

    sampler: SamplerName | None = None
    """Another sampler than the run's."""
    grid: GridName | None = None
    """Another step grid than the run's."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1."""

    def apply(self, run: Run) -> None:
        run.model.use(sampler=self.sampler, grid=self.grid, eta=self.eta)
