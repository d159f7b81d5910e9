"""Which pool the jobs of an experiment run in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .processes import LocalProcesses, Pool
from .ray_jobs import RayTasks


def pool_of(folder: Path, number: int | None = None, ray: Sequence[str] | None = None) -> Pool:
    """The pool for jobs that write into the folder: processes, or tasks of Ray if `ray` is not None.

    `number` is the most jobs at a time, and `ray` may hold an address. Raises ValueError for a number below 1 and for
    several addresses, and what `RayTasks` raises.
    """
    if number is not None and number < 1:
        raise ValueError(f"--jobs is {number}; give at least 1")
    if ray is None:
        return LocalProcesses(number)
    if len(ray) > 1:
        raise ValueError(f"--ray is {' '.join(ray)}; give one address, or none for a cluster of this machine")
    return RayTasks(folder, *ray, number=number)
