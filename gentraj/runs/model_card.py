"""The model card of a run: a README.md for the Hugging Face hub. All its numbers come from the run's own files."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Required

from annotated_types import Interval, Len
from pydantic import Strict, TypeAdapter, ValidationError
from torch import nn
from typing_extensions import TypedDict

from ..config import ConfigError, read_json, to_json
from ..data.sources import is_path, split_names
from ..plots.page import markdown_cell, markdown_table
from .folder import RunFolder
from .run import Run, steps_done

LARGEST_SCORE = 1e300  # sums of fewer than 10^8 such numbers are finite
YARDSTICKS = ("behaviour", "controller", "random")  # what the run's return is compared with
PROTOCOL = ("episodes", "seeds", "protocol")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

MEASURES = {  # the keys of evaluation.json in words, with their units
    "env_id": "environment", "protocol": "protocol", "seeds": "seeds", "sampling": "sampling",
    "return_mean": "return (mean of episodes)", "return_iqm": "return (interquartile mean)",
    "return_ci95": "return (95 % interval of the mean)", "success_rate": "success rate (share of episodes)",
    "first_hit_median": "first success (steps, median)", "time_at_goal_mean": "time at the goal (steps, mean)",
    "score_d4rl": "D4RL score (0 random, 100 expert)", "score_minari": "Minari score (0 random, 100 expert)",
    "latency_ms_p50": "time of a decision (ms, median)", "latency_ms_p99": "time of a decision (ms, 99th percentile)",
    "network_calls_per_decision": "network calls of a decision",
    "clipped_actions": "actions at a bound (share)", "clamped_observations": "observations that were clamped (share)"}

INTRO = """# {name}

{what}, trained for {step} steps with gentraj.

```python
import gentraj

run = gentraj.from_pretrained({name!r})  # this folder, or OWNER/NAME on the hub
{use}
```

The commands take the folder as well: `gentraj evaluate FOLDER`, `gentraj report FOLDER`. It holds the weights without
the state of the optimisers. {windows} windows of the data are in reference.safetensors; a planner's trust in its plans
and a world model's uncertainty are calibrated on them."""
SCORES = """Closed loop in {env}, {episodes} episodes. A return is the sum of the environment's own rewards over
a whole episode, and the interval is a 95 % bootstrap interval of the mean over episodes. The numbers are those of
evaluation.json{step}."""
FIGURES = "Copied from the run's folder; `gentraj report` draws them again."


class Card(NamedTuple):
    """What a card says beside the run: `note` says why there are no `scores`, `metrics` is the last logged row."""

    name: str
    scores: Mapping[str, Any]
    note: str
    metrics: Mapping[str, Any]
    figures: Sequence[str]


def model_card(run: Run, card: Card) -> str:
    """The text of the card: YAML front matter (library, tags, datasets, `model-index` with the scores) and Markdown."""
    what, use, _ = run.CARD
    intro = INTRO.format(name=card.name, step=run.step, windows=len(run.reference.x_BHD), what=what, use=use)
    text = [intro, "## Model", _model(run), "## Scores", _scores(card.scores) if card.scores else card.note]
    if losses := {key: value for key, value in card.metrics.items() if key.endswith("loss")}:
        text += [f"## Training\n\nMeans of the last logged row, step {card.metrics['step']}.",
                 markdown_table(("loss", "value"), losses.items())]
    if card.figures:
        text += [f"## Figures\n\n{FIGURES}", *(f"![{Path(path).stem}]({path})" for path in card.figures)]
    settings = replace(run.config, dataset="+".join(dataset_names(run.config.dataset)))
    text += ["## Settings", f"```json\n{json.dumps(to_json(settings), indent=1)}\n```"]
    return "\n".join(["---", _front_matter(run, card), "---", "", "\n\n".join(text), ""])


def read_scores(folder: Path, step: int, newest: int) -> tuple[dict[str, Any], str]:
    """The scores of the checkpoint `step` in a run's folder; if there are none, an empty dict and a sentence why.

    `newest` is the checkpoint that was evaluated if evaluation.json does not name one. Raises `ConfigError` for a file
    without scores.
    """
    path = folder / RunFolder.EVALUATION
    if not os.path.lexists(path):
        return {}, "This run was not evaluated: it has no scores."
    scores = read_json(path)
    try:
        TypeAdapter(Scores).validate_python(scores)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))} is {reprlib.repr(first['input'])}: {first['msg']}"
        raise ConfigError(f"{path}: holds no scores ({problem}); `gentraj evaluate` writes such a file, or remove "
                          "it") from None
    if (evaluated := scores.get("step", newest)) != step:
        return {}, f"This checkpoint was not evaluated: the run's scores are those of step {evaluated}, not of {step}."
    return scores, ""


Number = Annotated[float, Interval(ge=-LARGEST_SCORE, le=LARGEST_SCORE), Strict()]


class Yardstick(TypedDict):
    """Scores that a run's are compared with, as far as a page or a figure shows them."""

    return_mean: Number


class Scores(TypedDict, total=False):
    """What evaluation.json holds, as far as a page or a figure does more with it than to print it."""

    return_mean: Required[Number]
    return_ci95: Required[Annotated[list[Number], Len(2, 2)]]
    returns: list[Number]
    episodes: Annotated[int, Strict()]
    step: Annotated[int, Strict()]
    failures: list[Any]
    agent: str
    env_id: str
    behaviour: Yardstick | None
    controller: Yardstick | None
    random: Yardstick | None


def dataset_names(dataset: str) -> list[str]:
    """The names of the datasets that the setting `dataset` joins; files and folders are named without their place."""
    return [Path(name).name if is_path(name) or Path(name).is_absolute() else name
            for name in split_names(dataset)]


def parameters_trained(model: nn.Module) -> int:
    """The number of trained parameters of a model; their moving averages are not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _front_matter(run: Run, card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    _, _, tag = run.CARD
    results = []
    env = card.scores.get("env_id", "unknown")
    protocol = {key: card.scores[key] for key in PROTOCOL if key in card.scores}
    for key, value in card.scores.items():
        if type(value) in (int, float) and key not in (*PROTOCOL, "step", "steps"):
            results.append(EvalResult(task_type="reinforcement-learning", task_name="closed-loop control",
                                      dataset_type=env, dataset_name=env, dataset_args=protocol, metric_type=key,
                                      metric_value=value, metric_name=key.replace("_", " ")))
    facts = ModelCardData(
        library_name="gentraj", pipeline_tag="reinforcement-learning", model_name=card.name,
        eval_results=results or None,
        tags=["gentraj", type(run.main).__name__.lower(), "trajectories", tag, "offline-reinforcement-learning"],
        datasets=[name for name in dataset_names(run.config.dataset) if HUB_ID.fullmatch(name)],
        metrics=[result.metric_type for result in results] or None)
    return facts.to_yaml()


def _model(run: Run) -> str:
    env = json.loads(run.data.env)["id"] if run.data.env else None
    rows = {**run.facts(), "datasets": ", ".join(dataset_names(run.config.dataset)),
            "environment": env, "width of an observation": run.data.obs_dim, "width of an action": run.data.act_dim,
            "components": ", ".join(run.components), "parameters trained": parameters_trained(run.main),
            "training steps": steps_done(run), "seed": run.config.training.seed}
    return markdown_table(("setting", "value"), rows.items())


def _scores(scores: Mapping[str, Any]) -> str:
    step = f", made at step {scores['step']}" if "step" in scores else ", which does not say at which step it was made"
    about = SCORES.format(env=markdown_cell(scores.get("env_id")), episodes=episodes_scored(scores), step=step)
    return f"{about}\n\n{markdown_table(*score_rows(scores, ('env_id', 'episodes', 'step')))}"


def episodes_scored(scores: Mapping[str, Any]) -> str:
    """The number of episodes that were scored, and of how many, if some did not finish."""
    number, failures = scores.get("episodes"), scores.get("failures")
    return f"{number} of {number + len(failures)}" if number and failures else markdown_cell(number)


def _flat(scores: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The scores by key; of an object, such as that of a deadline, each entry, such as "deadline_misses"."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}_{name}", each) for name, each in _flat(value))
        else:
            yield key, value


UNPRINTED = ("agent", "returns", "successes", "last_evaluations", "failures")


def score_rows(scores: Mapping[str, Any], without: Sequence[str]) -> tuple[list[str], list[tuple]]:
    """The columns and rows of a table of the scores in evaluation.json, beside those of the yardsticks.

    The keys in `without`, and those that have no value, are left out.
    """
    beside = [name for name in YARDSTICKS if scores.get(name)]
    own = {key: value for key, value in scores.items() if key not in (*YARDSTICKS, *without, *UNPRINTED)}
    rows = [(MEASURES.get(key, key.replace("_", " ")), value, *(scores[name].get(key) for name in beside))
            for key, value in _flat(own)]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
    return ["measure", scores.get("agent", "planner"), *beside], rows
