"""Options of every command that samples."""

from __future__ import annotations

from dataclasses import astuple, dataclass

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
        if any(given is not None for given in astuple(self)):
            run.model.use(sampler=self.sampler, grid=self.grid, eta=self.eta)
