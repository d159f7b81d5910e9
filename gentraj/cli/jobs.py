"""The options of every command that runs many jobs: --jobs and --ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import PositiveInt

from ..config import settings
from ..experiments.pools import LocalProcesses, Pool, RayTasks

RayAddress = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")]


@settings
class JobsOptions:
    """Where jobs run."""

    jobs: PositiveInt | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: RayAddress = None
    """Run the jobs on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine. All its machines must share the folder that is written to. A job whose worker is lost is repeated."""


def pool_of(options: JobsOptions, folder: Path) -> Pool:
    """The pool for jobs that write into the folder. Raises ImportError if Ray is asked for and missing."""
    if options.ray is None:
        return LocalProcesses(options.jobs)
    return ray_tasks(folder, options.ray, options.jobs)


def ray_tasks(folder: Path, ray: Sequence[str], number: int | None = None) -> RayTasks:
    """The pool of --ray, for jobs that write into the folder. Raises ImportError if Ray is missing."""
    if len(ray) > 1:
        raise ValueError(f"--ray is {' '.join(ray)}; give one address, or none for a cluster of this machine")
    return RayTasks(folder, *ray, number=number)
