"""The options of every command that runs many jobs: --jobs and --ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..experiments.jobs import Pool, pool_of

RayAddress = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")]


@dataclass(frozen=True)
class JobsOptions:
    """Where jobs run."""

    jobs: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: RayAddress = None
    """Run the jobs on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine. All its machines must share the folder that is written to. A job whose worker is lost is repeated."""

    def pool(self, folder: Path) -> Pool:
        """The pool for jobs that write into the folder. Raises what `pool_of` raises."""
        return pool_of(folder, self.jobs, self.ray)
