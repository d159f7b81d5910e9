"""Experiments without processes, each of which takes seconds to begin."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from gentraj.experiments import engine
from gentraj.experiments.pools import Job, JobsStopped


def inline(patch: pytest.MonkeyPatch, at_most: int = 99) -> list[str]:
    """Jobs are done here, one after the other, until `at_most` of them; the outcome of each is added to the list."""
    outcomes: list[str] = []

    def run_jobs(jobs: Sequence[Job], pool: object) -> None:
        for job in jobs[:at_most]:
            try:
                job.function(*job.arguments)
            except SystemExit as error:
                outcomes.append(f"ended with code {error.code}")
            else:
                outcomes.append(job.outcome())
        if len(jobs) > at_most:
            raise JobsStopped(signal.SIGINT)

    patch.setattr(engine, "run_jobs", run_jobs)
    return outcomes
