"""What benchmarks of agents do alike: find the data, train a preset where it has not been, say one number of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from envs.evaluation.rollout import rollout
from envs.making import environment_factory
from envs.recording.baselines import RandomAgent
from gentraj.data import save_npz
from gentraj.runs import folder as runs
from gentraj.runs.presets import PRESETS
from gentraj.training import TrainingConfig

RANDOM = 2_000  # episodes


def source(dataset: str, out: Path) -> str:
    """What is trained on; random actions are recorded once."""
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


def train(preset: str, dataset: str, env_id: str, folder: Path, updates: int, seed: int) -> runs.Run:
    """The run in that folder, by as many threads as torch has here; what is trained already is not again. Of an
    `env_id` that is - the data say it."""
    training = TrainingConfig(updates, seed=seed, threads=torch.get_num_threads())
    config = replace(PRESETS[preset], dataset=dataset, env_id=None if env_id == "-" else env_id,
                     training=training)
    return runs.train(config, folder, resume=folder.exists())


def score(scores: Mapping[str, Any]) -> dict[str, Any]:
    """D4RL's of whole episodes where there is one, else the return."""
    by = "return_mean" if scores.get("score_d4rl") is None else "score_d4rl"
    return {"score": scores[by], "scored_by": by}
