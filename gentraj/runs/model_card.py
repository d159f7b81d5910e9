"""The model card of a run: a README.md for the Hugging Face hub. All its numbers come from the run's own files."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

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
    return "\n".join(["---", *yaml_lines(_front_matter(run, card)), "---", "", "\n\n".join(text), ""])


def read_scores(folder: Path, step: int, newest: int) -> tuple[dict[str, Any], str]:
    """The scores of the checkpoint `step` in a run's folder; if there are none, an empty dict and a sentence why.

    `newest` is the checkpoint that was evaluated if evaluation.json does not name one. Raises `ConfigError` for a file
    without scores.
    """
    path = folder / RunFolder.EVALUATION
    if not os.path.lexists(path):
        return {}, "This run was not evaluated: it has no scores."
    scores = read_json(path)
    if problem := next(_wrong_scores(scores, ("return_mean", "return_ci95")), None):
        raise ConfigError(f"{path}: holds no scores ({problem}); `gentraj evaluate` writes such a file, or remove it")
    if (evaluated := scores.get("step", newest)) != step:
        return {}, f"This checkpoint was not evaluated: the run's scores are those of step {evaluated}, not of {step}."
    return scores, ""


def _wrong_scores(scores: Mapping[str, Any], needed: Sequence[str], of: str = "") -> Iterator[str]:
    """What is wrong with the values that a page or a figure shows, those of the yardstick `of` or the run's own."""
    for key, (fits, expected) in SHAPES.items():
        if (key in scores or key in needed) and not fits(value := scores.get(key)):
            yield f"{of}{key} is {reprlib.repr(value)}; {expected} is expected"
    for name in () if of else YARDSTICKS:
        if isinstance(beside := scores.get(name), dict):
            yield from _wrong_scores(beside, ("return_mean",), f"{name}.")
        elif beside is not None:
            yield f"{name} is {reprlib.repr(beside)}; an object of scores is expected"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_SCORE


def _are_numbers(value: object, count: int | None = None) -> bool:
    return isinstance(value, list) and all(map(_is_number, value)) and len(value) == (len(value) if count is None
                                                                                     else count)


SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {  # of the values in evaluation.json that are not only printed
    "return_mean": (_is_number, "a number"), "return_ci95": (partial(_are_numbers, count=2), "a list of two numbers"),
    "returns": (_are_numbers, "a list of numbers"), "episodes": (lambda value: type(value) is int, "a whole number"),
    "step": (lambda value: type(value) is int, "a whole number"), "failures": (lambda value: isinstance(value, list),
                                                                                "a list"),
    **dict.fromkeys(("agent", "env_id"), (lambda value: isinstance(value, str), "a text"))}


def dataset_names(dataset: str) -> list[str]:
    """The names of the datasets that the setting `dataset` joins; files and folders are named without their place."""
    return [Path(name).name if is_path(name) or Path(name).is_absolute() else name
            for name in split_names(dataset)]


def parameters_trained(model: nn.Module) -> int:
    """The number of trained parameters of a model; their moving averages are not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def yaml_lines(value: Any, indent: str = "") -> Iterator[str]:
    """The lines of JSON values written as YAML blocks.

    Strings are quoted as in JSON, and unprintable characters are escaped as YAML demands.
    """
    entries = value.items() if isinstance(value, Mapping) else (("-", item) for item in value)
    for key, item in entries:
        head = f"{indent}{key}" if key == "-" else f"{indent}{key}:"
        if not isinstance(item, Mapping | list):
            yield f"{head} {_scalar(item)}"
        elif key == "-" and item:  # the first line of the item follows the dash
            first, *rest = yaml_lines(item, indent + "  ")
            yield from (f"{head} {first.lstrip()}", *rest)
        elif item:
            yield from (head, *yaml_lines(item, indent + "  "))
        else:
            yield f"{head} {json.dumps(item)}"


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, float) and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 reads 1e-05 as a string
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _front_matter(run: Run, card: Card) -> dict[str, Any]:
    _, _, tag = run.CARD
    tags = ["gentraj", type(run.main).__name__.lower(), "trajectories", tag, "offline-reinforcement-learning"]
    facts: dict[str, Any] = {"library_name": "gentraj", "pipeline_tag": "reinforcement-learning", "tags": tags,
                             "datasets": [name for name in dataset_names(run.config.dataset) if HUB_ID.fullmatch(name)]}
    if not card.scores:
        return facts
    measured = {key: value for key, value in card.scores.items()
                if type(value) in (int, float) and key not in (*PROTOCOL, "step")}
    env = card.scores.get("env_id", "unknown")
    result = {"task": {"type": "reinforcement-learning", "name": "closed-loop control"},
              "dataset": {"type": env, "name": env,
                          "args": {key: card.scores[key] for key in PROTOCOL if key in card.scores}},
              "metrics": [{"type": key, "value": value, "name": key.replace("_", " ")}
                          for key, value in measured.items()]}
    return facts | {"metrics": list(measured), "model-index": [{"name": card.name, "results": [result]}]}


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
