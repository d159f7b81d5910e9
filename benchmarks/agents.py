"""What benchmarks of agents do alike: train a preset where it has not been, and say one number of how it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gentraj import runs
from gentraj.presets import PRESETS
from gentraj.training import TrainingConfig


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
