"""What an agent did to be in time, as its rollouts count it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gentraj import runs
from gentraj.agents.realtime.background import Deadline, SimulatedTime
from gentraj.envs.evaluation.rollout import RolloutSettings, join, rollout
from gentraj.envs.making import environment_factory


def test_each_rollout_counts_its_own_steps_and_joined_ones_count_all(hopper_run: Path) -> None:
    """The agent itself counts on from rollout to rollout."""
    run, factory = runs.load(hopper_run), environment_factory("Hopper-v5")
    time: Any = SimulatedTime()
    agent = run.agent(run.action_space("Hopper-v5"), deadline=Deadline(0.05, None, time, time))
    agent.leave_data()
    settings = RolloutSettings(1, batch_invariant=False, period=0.05)
    parts = [rollout(agent, factory, 2, seed, settings, progress=False) for seed in (3, 4)]
    for each in (*parts, join(parts)):
        assert each.timing["acted_by"].total() == each.lengths.sum() == len(each.act_ms)
