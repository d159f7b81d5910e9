"""Data that the tests of runs share."""

from __future__ import annotations

from pathlib import Path

import following  # noqa: F401 (registers the environment)
import pytest

from gentraj.data import save_npz
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent


@pytest.fixture(scope="session")
def follow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file follow.npz with 20 episodes of random actions in `following.Follow`."""
    agent, factory = RandomAgent([-1.0], [1.0]), environment_factory("tests/Follow-v0")
    played = rollout(agent, factory, 20, record=True, progress=False).recorded
    return save_npz(played, tmp_path_factory.mktemp("follow") / "follow.npz")
