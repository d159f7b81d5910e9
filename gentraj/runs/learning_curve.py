"""The score on the way of a training: scores.jsonl, a row for each time that the agent was evaluated.

It is for people to look at. Nothing is chosen by it: the last checkpoint is the one that counts.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envs.evaluation.evaluate import EvaluationConfig, evaluate

from ..files import write_file
from ..progress import say
from ..training.log import LogWarning, read_rows

if TYPE_CHECKING:
    from .folder import Run

FILE = "scores.jsonl"
KEPT = ("episodes", "return_mean", "return_ci95", "success_rate", "score_d4rl", "score_minari")


def record(run: Run, episodes: int) -> None:
    """Evaluates the run as it is and adds a row, always on the same starts and goals.

    Rows of later steps are dropped: they are of a training that was interrupted, and will be made again. What goes
    wrong in the environment is a warning and costs the row, not the training.
    """
    env, config = run.environment(), EvaluationConfig(episodes=episodes, baselines=False)
    try:
        scores, _ = evaluate(run.agent(run.action_space(env)), env, config, obs_keys=run.data.obs_keys,
                             goal_dims=run.data.goal_dims)
    except (RuntimeError, ValueError, OSError) as error:
        warnings.warn(f"step {run.step}: not evaluated, {error}; training goes on", LogWarning, stacklevel=2)
        return
    row = {"step": run.step} | {key: scores[key] for key in KEPT if scores[key] is not None}
    rows = [before for before in read(run.folder) if before["step"] < run.step]
    write_file(run.folder / FILE, "".join(json.dumps(each) + "\n" for each in [*rows, row]).encode())
    low, high = row["return_ci95"]
    say(f"step {run.step}: return {row['return_mean']:.4g} [{low:.4g}, {high:.4g}] in {episodes} episodes")


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows in the order of their steps; none where nothing was evaluated."""
    return read_rows(folder / FILE)
