"""evaluation.json: what it holds, in words, and how it is read."""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import Annotated, Required

from annotated_types import Len
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ...config import ConfigError, JsonObject, read_json
from ...progress import counted
from ..kinds.folder import RunFolder

RETURN_OF = {"behaviour": "return of the data", "controller": "return of the controller",
             "random": "return of a random agent"}
YARDSTICKS = tuple(RETURN_OF)  # the keys in evaluation.json of what the run's return is compared with
MEASURES = {  # the keys of evaluation.json in words, with their units
    "env_id": "environment", "step": "training step", "networks": "networks are run by",
    "return_mean": "return (mean of episodes)", "return_iqm": "return (interquartile mean)",
    "return_ci95": "return (95 % interval of the mean)", "reward_mean": "reward (mean of steps)",
    "success_rate": "success rate (share of episodes)", "first_hit_median": "first success (steps, median)",
    "time_at_goal_mean": "time at the goal (steps, mean)",
    "score_d4rl": "D4RL score (0 random, 100 expert)", "score_minari": "Minari score (0 random, 100 expert)",
    "latency_ms_p50": "time of a decision (ms, median)", "latency_ms_p99": "time of a decision (ms, 99th percentile)",
    "network_calls_per_decision": "network calls of a decision",
    "clipped_actions": "actions at a bound (share)", "clamped_observations": "observations that were clamped (share)"}


class Yardstick(TypedDict):
    """Scores that a run's are compared with, as far as a page or a figure does more with them than to print them."""

    return_mean: float | None


class Scores(TypedDict, total=False):
    """What evaluation.json holds, as far as a page or a figure does more with it than to print it."""

    return_mean: Required[float]
    return_ci95: Required[Annotated[list[float], Len(2, 2)]]
    returns: list[float]
    episodes: int
    step: int
    failures: list[str]
    agent: str
    behaviour: Yardstick | None
    controller: Yardstick | None
    random: Yardstick | None


SCORES_FILE = TypeAdapter(Scores)


def read_scores(folder: Path, step: int, newest: int) -> tuple[JsonObject, str]:
    """The scores of the checkpoint `step` in a run's folder; if there are none, an empty dict and a sentence why.

    `newest` is the checkpoint that was evaluated if evaluation.json does not name one. Raises `ConfigError` for a file
    without scores.
    """
    path = folder / RunFolder.EVALUATION
    if not os.path.lexists(path):
        return {}, "This run was not evaluated: it has no scores."
    scores = read_json(path)
    try:
        SCORES_FILE.validate_python(scores, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))} is {reprlib.repr(first['input'])}: {first['msg']}"
        raise ConfigError(f"{path}: holds no scores ({problem}); `gentraj evaluate` writes such a file, or remove "
                          "it") from None
    if (evaluated := scores.get("step", newest)) != step:
        return {}, f"This checkpoint was not evaluated: the run's scores are those of step {evaluated}, not of {step}."
    return scores, ""


def episodes_scored(scores: JsonObject) -> str:
    """How many episodes were scored, and of how many, if some did not finish."""
    number, failures = scores["episodes"], scores.get("failures")
    if failures:
        return f"{number} of {number + len(failures)} episodes"
    return counted(number, "episodes")


def yardstick_returns(scores: JsonObject) -> dict[str, float]:
    """The mean return of each yardstick that has one."""
    return {name: scores[name]["return_mean"] for name in YARDSTICKS
            if scores.get(name) and scores[name]["return_mean"] is not None}
