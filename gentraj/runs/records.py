"""What a training writes beside its checkpoints for a human reader: provenance.json and scores.jsonl.

provenance.json has an entry for each time that the training was started or resumed; scores.jsonl, the learning curve,
has a line for each time that the agent was evaluated while it was trained. Neither decides anything: the last
checkpoint is the result whatever it scored, and a run without these files works as well.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate

from ..config import read_json, write_json
from ..progress import say
from ..training.log import LogWarning, read_rows, write_rows
from ..trajectory import Agent
from .settings import DataFacts

PROVENANCE, SCORES = "provenance.json", "scores.jsonl"
SCORED = ("return_mean", "success_rate", "score_d4rl", "score_minari")
KEPT = ("episodes", *SCORED, "return_ci95", "returns", "successes")
LAST = 3  # evaluations, whose mean is stated beside the score of the last checkpoint


def record_start(folder: Path, device: torch.device | None, resume: bool, processes: int = 1) -> None:
    """Adds an entry for this start to provenance.json, or begins the file anew where `resume` is false.

    The command is written as it was typed in the shell: `gentraj train ...`, or the user's own script.
    """
    program, *words = sys.argv
    path = Path(program)
    name = "gentraj" if "gentraj" in (path.name, path.parent.name) else path.name  # `python -m gentraj` too
    command = shlex.join([name, *words]).encode(errors="backslashreplace").decode()  # a path need not be in UTF-8
    start = {"command": command, "version": version("gentraj"), "torch": torch.__version__,
             "python": platform.python_version(), "device": _device_name(device),
             "processes": processes}
    starts = [*(read_starts(folder) if resume else []), start]
    write_json(folder / PROVENANCE, {"starts": starts})


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The entries of provenance.json, oldest first; an empty list if the file is missing or holds something else."""
    path = folder / PROVENANCE
    starts = read_json(path).get("starts") if os.path.lexists(path) else []
    return [each for each in starts if isinstance(each, dict)] if isinstance(starts, list) else []


def _device_name(device: torch.device | None) -> str:
    if device is not None and device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device or "cpu")


def record_score(folder: Path, step: int, agent: Agent, data: DataFacts, episodes: int) -> None:
    """Evaluates the agent at this training step and adds a line to scores.jsonl.

    Starts and goals are the same at every step. Lines of later steps are dropped: they come from a training that was
    interrupted, and will be written again. An error of the environment becomes a warning; it costs the line, not the
    training.
    """
    config = EvaluationConfig(episodes=episodes, baselines=False)
    try:
        scores, _ = evaluate(agent, str(data.env), config, obs_keys=data.obs_keys, goal_dims=data.goal_dims)
    except (RuntimeError, ValueError, OSError) as error:
        warnings.warn(f"step {step}: not evaluated, {error}; training goes on", LogWarning, stacklevel=2)
        return
    row = {"step": step} | {key: scores[key] for key in KEPT if scores[key] is not None}
    rows = [earlier for earlier in read_learning_curve(folder) if earlier["step"] < step]
    write_rows(folder / SCORES, [*rows, row])
    low, high = scores["return_ci95"]
    say(f"step {step}: return {row['return_mean']:.4g} [{low:.4g}, {high:.4g}] in {episodes} episodes")


def read_learning_curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of scores.jsonl in the order of their steps; an empty list if nothing was evaluated."""
    return read_rows(folder / SCORES)


def last_evaluations(curve: Sequence[Mapping[str, Any]], step: int | None = None) -> dict[str, Any] | None:
    """The mean of each score over the last three evaluations of a learning curve, with their "steps".

    Evaluations after `step` are not counted. None where there are fewer than three.
    """
    rows = [row for row in curve if step is None or row["step"] <= step][-LAST:]
    if len(rows) < LAST:
        return None
    means = {key: sum(row[key] for row in rows) / LAST for key in SCORED if all(key in row for row in rows)}
    return {"steps": [row["step"] for row in rows], **means}
