"""Shared by benchmarks of agents: provides the data, trains presets that are not trained yet, and scores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gentraj import runs
from gentraj.cli.varying import split, values
from gentraj.config import with_settings
from gentraj.data import save_npz
from gentraj.envs.evaluation.rollout import rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent
from gentraj.runs.presets import PRESETS
from gentraj.training import TrainingConfig

RANDOM = 2_000  # episodes


def source(dataset: str, out: Path) -> str:
    """Returns the dataset to train on; random/ENV_ID is recorded once."""
    kind, _, env_id = dataset.partition("/")
    if kind != "random":
        return dataset
    path = out / f"{env_id}.npz"
    if not path.exists():
        factory = environment_factory(env_id)
        space = factory().action_space
        played = rollout(RandomAgent(space.low, space.high), factory, RANDOM, record=True, progress=False)
        save_npz(played.recorded, path)
    return str(path)


def train(preset: str, dataset: str, env_id: str, folder: Path, updates: int, seed: int,
          changes: Sequence[str] = ()) -> runs.Run:
    """Trains the run in `folder`, or resumes it, with torch's current number of threads.

    An `env_id` of "-" takes the environment from the data. `changes` are settings that differ from the preset,
    KEY=VALUE; raises ValueError for other text and for a key that the preset does not have.
    """
    training = TrainingConfig(updates, seed=seed, threads=torch.get_num_threads())
    config = replace(PRESETS[preset], dataset=dataset, env_id=None if env_id == "-" else env_id,
                     training=training)
    given = {key: values(value)[0] for key, value in (split(change, preset) for change in changes)}
    return runs.train(with_settings(config, given, preset), folder, resume=folder.exists())


def score(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns D4RL's score of whole episodes if there is one, else the mean return."""
    by = "return_mean" if scores.get("score_d4rl") is None else "score_d4rl"
    return {"score": scores[by], "scored_by": by}
