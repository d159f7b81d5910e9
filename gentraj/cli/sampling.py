"""Options of every command that samples."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Protocol

from ..diffusion.settings import GridName, SamplerName


class Sampling(Protocol):
    """A generator, or what acts by one."""

    def use(self, *, sampler: str | None = None, grid: str | None = None, eta: float | None = None) -> None: ...


@dataclass(frozen=True)
class SamplingOptions:
    """How to sample where it is not as the run says."""

    sampler: SamplerName | None = None
    """Another sampler than the run's."""
    grid: GridName | None = None
    """Another step grid than the run's."""
    eta: float | None = None
    """Noise added while sampling, from 0 (deterministic) to 1."""

    def apply(self, to: Sampling) -> None:
        """Raises ValueError for what cannot sample so."""
        if any(given is not None for given in astuple(self)):
            to.use(sampler=self.sampler, grid=self.grid, eta=self.eta)
