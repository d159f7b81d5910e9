"""The episodes of an evaluation in parts: the same bits as in one rollout, whatever the number of parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from gentraj import runs
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.experiments.jobs import Job, ShardedRollout


class Here:
    """A pool that does each job where it is started, unless it is one of those that fail."""

    def __init__(self, number: int, failing: int = 0):
        self.number, self.failing = number, failing

    def start(self, job: Job) -> str:
        self.failing -= 1
        if self.failing < 0:
            job.function(*job.arguments)
        return job.name

    def ended(self, running: Mapping[str, Job], seconds: float) -> list[tuple[str, str | None]]:
        return [(name, None) for name in running]

    def stop(self, running: Iterable[str]) -> None:
        assert not list(running)


@pytest.mark.parametrize("number", [2, 9])
def test_parts_are_joined_to_the_same_rollout(hopper_run: Path, tmp_path: Path, number: int) -> None:
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    agent = run.agent(run.action_space("Hopper-v5"))
    whole = rollout(agent, factory, 7, 3, RolloutSettings(5), record=True, progress=False)
    play = ShardedRollout(lambda folder: Here(number), tmp_path)
    played = play(agent, factory, 7, 3, RolloutSettings(5), record=True)
    for name in (field.name for field in fields(whole)):
        if name not in ("latency_ms", "act_ms", "network_calls", "recorded"):  # those of a smaller batch
            assert np.array_equal(getattr(whole, name), getattr(played, name)), name
    assert whole.recorded is not None and played.recorded is not None
    for key, value in whole.recorded.arrays.items():
        assert np.array_equal(value, played.recorded.arrays[key]), key
    assert played.recorded.name == whole.recorded.name and not list(tmp_path.iterdir())


def test_a_part_that_fails_is_no_score(hopper_run: Path, tmp_path: Path) -> None:
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    agent = run.agent(run.action_space("Hopper-v5"))
    with pytest.raises(RuntimeError, match="1 of 2 parts of the evaluation failed"):
        ShardedRollout(lambda folder: Here(2, failing=1), tmp_path)(agent, factory, 2)
    assert not list(tmp_path.iterdir())
