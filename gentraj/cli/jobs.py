"""The options of every command that runs many jobs: --jobs and --ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..experiments.jobs import LocalProcesses, Pool
from ..experiments.ray_jobs import RayTasks

RayAddress = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")]


@dataclass(frozen=True)
class JobsOptions:
    """Where jobs run."""

    jobs: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: RayAddress = None
    """Run the jobs on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine. All its machines must share the folder that is written to. A job whose worker is lost is repeated."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs is {self.jobs}; give at least 1")
        if self.ray is not None and len(self.ray) > 1:
            raise ValueError(f"--ray is {' '.join(self.ray)}; give one address, or none for a cluster of this machine")

    def pool(self, folder: Path) -> Pool:
        """The pool for jobs that write into the folder. Raises ImportError if Ray is asked for and missing."""
        if self.ray is None:
            return LocalProcesses(self.jobs)
        return RayTasks(folder, *self.ray, number=self.jobs)
