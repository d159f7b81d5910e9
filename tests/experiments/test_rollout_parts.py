"""The episodes of an evaluation in parts: the same bits as in one rollout, whatever the number of parts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gentraj import runs
from gentraj.agents.realtime.background import Deadline, SimulatedTime
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


class Copies(Here):
    """The same with copies of what is submitted, as in other processes."""

    def submit(self, function: Any, *arguments: Any) -> Any:
        return function(*deepcopy(arguments))


def test_parts_are_joined_to_the_same_rollout(hopper_run: Path) -> None:
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    agent = run.agent(run.action_space("Hopper-v5"))
    whole = rollout(agent, factory, 7, 3, RolloutSettings(5), record=True, progress=False)
    here: Any = Here(3)
    played = ray_rollout(here)(agent, factory, 7, 3, RolloutSettings(5), record=True)
    for name in (field.name for field in fields(whole)):
        if name not in ("latency_ms", "act_ms", "network_calls", "recorded"):  # those of a smaller batch
            assert np.array_equal(getattr(whole, name), getattr(played, name)), name
    assert whole.recorded is not None and played.recorded is not None
    for key, value in whole.recorded.arrays.items():
        assert np.array_equal(value, played.recorded.arrays[key]), key
    assert played.recorded.name == whole.recorded.name


def test_what_an_agent_did_to_be_in_time_is_counted_over_all_parts(hopper_run: Path) -> None:
    """Each part counts its own steps, though the agent counts on from part to part, and copies from what it was."""
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    time: Any = SimulatedTime()
    agent = run.agent(run.action_space("Hopper-v5"), deadline=Deadline(0.05, None, time, time))
    settings = RolloutSettings(1, batch_invariant=False, period=0.05)
    whole = rollout(agent, factory, 4, 3, settings, progress=False)
    again = rollout(agent, factory, 4, 3, settings, progress=False)
    assert whole.timing["acted_by"].total() == whole.lengths.sum() == again.timing["acted_by"].total()
    copies: Any = Copies(3)
    played = ray_rollout(copies)(agent, factory, 4, 3, settings)
    assert played.timing["acted_by"].total() == played.lengths.sum() == len(played.act_ms)
    assert played.timing == again.timing
