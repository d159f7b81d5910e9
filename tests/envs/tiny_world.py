"""Helpers of the tests of world-model environments: a tiny run, its environments, and actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from gentraj import (
    envs,  # noqa: F401  registers gentraj/WorldModel-v0
    runs,
)
from gentraj.envs.worlds.imagined import WorldModelEnv, WorldModelVectorEnv
from gentraj.networks import ResidualMLPConfig
from gentraj.runs.kinds.world_run import WorldModelRunConfig
from gentraj.training import TrainingConfig
from gentraj.worlds.model import GENERATOR, WorldModel, WorldModelConfig

ID = "gentraj/WorldModel-v0"
# only a predicted end or the time limit ends an episode
FREE: dict[str, Any] = {"margin": 1e9, "max_uncertainty": 1e9}


def train(dataset: Path, folder: Path) -> Path:
    generator = replace(GENERATOR, network=ResidualMLPConfig(16, 1))
    world = WorldModelConfig(model=generator, members=2, width=16, depth=1, batch_size=32)
    config = WorldModelRunConfig(str(dataset), world=world, training=TrainingConfig(100, warmup=1, threads=1))
    runs.train(config, folder=folder, progress=False)
    return folder


def one(run: Path, **settings: Any) -> WorldModelEnv:
    made = gymnasium.make(ID, run=run, **settings).unwrapped
    assert isinstance(made, WorldModelEnv)
    return made


def many(run: Path, num_envs: int = 4, **settings: Any) -> WorldModelVectorEnv:
    made = gymnasium.make_vec(ID, num_envs=num_envs, run=run, **settings).unwrapped
    assert isinstance(made, WorldModelVectorEnv)
    return made


def predict(monkeypatch: pytest.MonkeyPatch, env: WorldModelEnv | WorldModelVectorEnv, rows: slice = slice(None),
            **values: float) -> None:
    """Replaces fields of the world model's predictions, in the given rows of the batch, from now on."""
    world: WorldModel = env.episodes.world
    imagine = world.imagine

    def replaced(*args: Any, **kwargs: Any) -> Any:
        predicted = imagine(*args, **kwargs)
        for name, value in values.items():
            getattr(predicted, name)[rows] = value
        return predicted

    monkeypatch.setattr(world, "imagine", replaced)


def pushes(steps: int, num_envs: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, width)).astype(np.float32)
