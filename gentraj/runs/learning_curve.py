"""The score on the way of a training: scores.jsonl, a row for each time that the agent was evaluated.

It is for people to look at. Nothing is chosen by it: the last checkpoint is the one that counts.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from envs.evaluation.evaluate import EvaluationConfig, evaluate

from ..files import write_file
from ..progress import say
from ..training.log import LogWarning, read_rows
from ..trajectory import Agent
from .data_facts import DataFacts

FILE = "scores.jsonl"
KEPT = ("episodes", "return_mean", "return_ci95", "success_rate", "score_d4rl", "score_minari")


def record(folder: Path, step: int, agent: Agent, data: DataFacts, episodes: int) -> None:
    """Evaluates the agent of this step and adds a row, always on the same starts and goals.

    Rows of later steps are dropped: they are of a training that was interrupted, and will be made again. What goes
    wrong in the environment is a warning and costs the row, not the training.
    """
    config = EvaluationConfig(episodes=episodes, baselines=False)
    try:
        scores, _ = evaluate(agent, str(data.env), config, obs_keys=data.obs_keys, goal_dims=data.goal_dims)
    except (RuntimeError, ValueError, OSError) as error:
        warnings.warn(f"step {step}: not evaluated, {error}; training goes on", LogWarning, stacklevel=2)
        return
    row = {"step": step} | {key: scores[key] for key in KEPT if scores[key] is not None}
    rows = [before for before in read(folder) if before["step"] < step]
    write_file(folder / FILE, "".join(json.dumps(each) + "\n" for each in [*rows, row]).encode())
    low, high = scores["return_ci95"]
    say(f"step {step}: return {row['return_mean']:.4g} [{low:.4g}, {high:.4g}] in {episodes} episodes")


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in the order of their steps; none where nothing was evaluated."""
    return read_rows(folder / FILE)
