"""What pages and model cards say of a run: its facts and its scores, all from the run's own files."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Required

from annotated_types import Len
from pydantic import TypeAdapter, ValidationError
from torch import nn
from typing_extensions import TypedDict

from ...config import ConfigError, JsonObject, read_json
from ...data.sources import is_path, split_names
from ...plots.page import markdown_table
from ...progress import counted
from ..kinds.folder import RunFolder
from ..kinds.run import Run, steps_done

RETURN_OF = {"behaviour": "return of the data", "controller": "return of the controller",
             "random": "return of a random agent"}
YARDSTICKS = tuple(RETURN_OF)  # the keys in evaluation.json of what the run's return is compared with
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

MEASURES = {  # the keys of evaluation.json in words, with their units
    "env_id": "environment", "step": "training step", "networks": "networks are run by",
    "return_mean": "return (mean of episodes)", "return_iqm": "return (interquartile mean)",
    "return_ci95": "return (95 % interval of the mean)", "success_rate": "success rate (share of episodes)",
    "first_hit_median": "first success (steps, median)", "time_at_goal_mean": "time at the goal (steps, mean)",
    "score_d4rl": "D4RL score (0 random, 100 expert)", "score_minari": "Minari score (0 random, 100 expert)",
    "latency_ms_p50": "time of a decision (ms, median)", "latency_ms_p99": "time of a decision (ms, 99th percentile)",
    "network_calls_per_decision": "network calls of a decision",
    "clipped_actions": "actions at a bound (share)", "clamped_observations": "observations that were clamped (share)"}
UNPRINTED = ("agent", "returns", "successes", "last_evaluations", "failures", "steps")

INTRO = """# {name}

{what}, trained for {step} steps with gentraj.

```python
import gentraj

run = gentraj.from_pretrained({name!r})  # this folder, or OWNER/NAME on the hub
{use}
```

The commands take the folder as well: `gentraj evaluate FOLDER`, `gentraj report FOLDER`. It holds the weights without
the state of the optimisers, and windows of the data, on which a planner's trust in its plans and a world model's
uncertainty are calibrated."""
SCORES = """A return is the sum of the environment's own rewards over a whole episode. Its interval is a 95 % bootstrap
interval of the mean over episodes. Behaviour is the mean of the data's own episodes; the controller recorded the data,
and acts without noise and with replanning here."""


def model_card(run: Run, name: str, scores: JsonObject, note: str, figures: Sequence[str]) -> str:
    """The README.md of a run: YAML front matter (library, tags, datasets, `model-index` with the scores) and Markdown.

    `note` says why there are no `scores`, and `figures` are paths beside the card.
    """
    what, use = run.CARD[:2]
    intro = INTRO.format(name=name, step=run.step, what=what, use=use)
    text = [intro, "## Model", markdown_table(("setting", "value"), facts(run).items()), "## Scores"]
    text += [SCORES, markdown_table(*score_rows(scores))] if scores else [note]
    if figures:
        text += ["## Figures", *(f"![{Path(path).stem}]({path})" for path in figures)]
    return "\n".join(["---", _front_matter(run, name, scores).strip(), "---", "", "\n\n".join(text), ""])


class Yardstick(TypedDict):
    """Scores that a run's are compared with, as far as a page or a figure does more with them than to print them."""

    return_mean: float


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


def facts(run: Run) -> JsonObject:
    """The table of a run's settings, for its page and its card."""
    env = json.loads(run.data.env)["id"] if run.data.env else None
    return {**run.facts(), "datasets": ", ".join(dataset_names(run.config.dataset)), "environment": env,
            "width of an observation": run.data.obs_dim, "width of an action": run.data.act_dim,
            "components": ", ".join(run.components), "parameters trained": parameters_trained(run.main),
            "training steps": steps_done(run), "seed": run.config.training.seed}


def dataset_names(dataset: str) -> list[str]:
    """The names of the datasets that the setting `dataset` joins; files and folders are named without their place."""
    return [Path(name).name if is_path(name) or Path(name).is_absolute() else name
            for name in split_names(dataset)]


def parameters_trained(model: nn.Module) -> int:
    """The number of trained parameters of a model; their moving averages are not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _front_matter(run: Run, name: str, scores: JsonObject) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    env = scores.get("env_id", "unknown")
    results = [EvalResult(task_type="reinforcement-learning", task_name="closed-loop control", dataset_type=env,
                          dataset_name=env, metric_type=key, metric_value=value, metric_name=MEASURES[key])
               for key, value in scores.items() if key in MEASURES and isinstance(value, float)]
    return ModelCardData(
        library_name="gentraj", pipeline_tag="reinforcement-learning", model_name=name, eval_results=results or None,
        tags=["gentraj", type(run.main).__name__.lower(), "trajectories", run.CARD[2],
              "offline-reinforcement-learning"],
        datasets=[name for name in dataset_names(run.config.dataset) if HUB_ID.fullmatch(name)],
        metrics=[result.metric_type for result in results] or None).to_yaml()


def episodes_scored(scores: JsonObject) -> str:
    """How many episodes were scored, and of how many, if some did not finish."""
    number, failures = scores["episodes"], scores.get("failures")
    if failures:
        return f"{number} of {number + len(failures)} episodes"
    return counted(number, "episodes")


def _flat(scores: JsonObject) -> Iterator[tuple[str, Any]]:
    """The scores by key; of an object, such as that of a deadline, each entry, such as "deadline_misses"."""
    for key, value in scores.items():
        if isinstance(value, dict):
            yield from ((f"{key}_{name}", each) for name, each in _flat(value))
        else:
            yield key, value


def own_scores(scores: JsonObject) -> JsonObject:
    """The scores in evaluation.json by what they are, and the returns of the yardsticks; empty without any."""
    if not scores:
        return {}
    _, rows = score_rows({key: value for key, value in scores.items() if key not in YARDSTICKS})
    beside = {title: scores[name]["return_mean"] for name, title in RETURN_OF.items() if scores.get(name)}
    return dict(rows) | beside


def score_rows(scores: JsonObject) -> tuple[list[str], list[tuple]]:
    """The columns and rows of a table of the scores in evaluation.json, beside those of the yardsticks.

    Scores that have no value are left out.
    """
    beside = [name for name in YARDSTICKS if scores.get(name)]
    own = {key: value for key, value in scores.items() if key not in (*YARDSTICKS, *UNPRINTED)}
    rows = [(MEASURES.get(key, key.replace("_", " ")), value, *(scores[name].get(key) for name in beside))
            for key, value in _flat(own)]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
    return ["measure", scores.get("agent", "planner"), *beside], rows
