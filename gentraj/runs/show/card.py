"""What pages and model cards say of a run: its facts and its scores, all from the run's own files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...config import JsonObject
from ...data.sources import dataset_names
from ...plots.page import markdown_table
from ..judge.saved_scores import MEASURES, YARDSTICKS
from ..kinds.run import Run, steps_done

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

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
EXPLAINED = {  # what a table of scores has to say of what is in it, by the keys of evaluation.json
    "return_mean": "A return is the sum of the environment's own rewards over a whole episode.",
    "return_ci95": "Its interval is a 95 % bootstrap interval of the mean over episodes.",
    "reward_mean": "The mean reward of a step compares with data that are no whole episodes, too.",
    "behaviour": "Behaviour is the mean of the data's own episodes.",
    "controller": "The controller recorded the data, and acts without noise and with replanning here."}


def model_card(run: Run, name: str, scores: JsonObject, note: str, figures: Sequence[str]) -> str:
    """The README.md of a run: YAML front matter (library, tags, datasets, `model-index` with the scores) and Markdown.

    `note` says why there are no `scores`, and `figures` are paths beside the card.
    """
    what, use = run.CARD[:2]
    intro = INTRO.format(name=name, step=run.step, what=what, use=use)
    text = [intro, "## Model", markdown_table(("setting", "value"), facts(run).items()), "## Scores"]
    text += [explanation(scores), markdown_table(*score_rows(scores))] if scores else [note]
    if figures:
        text += ["## Figures", *(f"![{Path(path).stem}]({path})" for path in figures)]
    return "\n".join(["---", _front_matter(run, name, scores).strip(), "---", "", "\n\n".join(text), ""])


def facts(run: Run) -> JsonObject:
    """The table of a run's settings, for its page and its card."""
    env = json.loads(run.data.env)["id"] if run.data.env else None
    return {**run.facts(), "datasets": ", ".join(dataset_names(run.config.dataset)), "environment": env,
            "width of an observation": run.data.obs_dim, "width of an action": run.data.act_dim,
            "components": ", ".join(run.components), "parameters trained": parameters_trained(run.main),
            "training steps": steps_done(run), "seed": run.config.training.seed}


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


def _flat(scores: JsonObject) -> Iterator[tuple[str, Any]]:
    """The scores by key; of an object, such as that of a deadline, each entry, such as "deadline_misses"."""
    for key, value in scores.items():
        if isinstance(value, dict):
            yield from ((f"{key}_{name}", each) for name, each in _flat(value))
        else:
            yield key, value


def explanation(scores: JsonObject) -> str:
    """What a table of these scores shows, in sentences about what is in it."""
    return " ".join(words for key, words in EXPLAINED.items() if scores.get(key) is not None)


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
