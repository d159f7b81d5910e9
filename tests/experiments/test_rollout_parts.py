"""The episodes of an evaluation in parts: the same bits as in one rollout, whatever the number of parts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gentraj import runs
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.experiments.pools import ray_rollout


class Here:
    """Tasks that are done where they are submitted."""

    def __init__(self, number: int):
        self.number = number

    def submit(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def result(self, ref: Any) -> Any:
        return ref


@pytest.mark.parametrize("number", [2, 9])
def test_parts_are_joined_to_the_same_rollout(hopper_run: Path, number: int) -> None:
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    agent = run.agent(run.action_space("Hopper-v5"))
    whole = rollout(agent, factory, 7, 3, RolloutSettings(5), record=True, progress=False)
    here: Any = Here(number)
    played = ray_rollout(here)(agent, factory, 7, 3, RolloutSettings(5), record=True)
    for name in (field.name for field in fields(whole)):
        if name not in ("latency_ms", "act_ms", "network_calls", "recorded"):  # those of a smaller batch
            assert np.array_equal(getattr(whole, name), getattr(played, name)), name
    assert whole.recorded is not None and played.recorded is not None
    for key, value in whole.recorded.arrays.items():
        assert np.array_equal(value, played.recorded.arrays[key]), key
    assert played.recorded.name == whole.recorded.name
