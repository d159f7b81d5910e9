"""`gentraj ablate`: a preset and its variants with one setting changed, as cards on the engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_json, to_word
from ..files import write_file
from ..plots.page import markdown_table
from . import engine
from .cards import Card
from .engine import Task, write_json
from .processes import Pool
from .reproduce import Cards, seed_result
from .results_tables import number as number_of
from .statistics import Scores, over_seeds

BASE = "base"
DATA = "data"  # the name of the dataset in every card
COLUMNS = ("setting", "base", "changed to", "mean", "95 % interval", "minus base", "95 % interval of that")
SETTINGS, NUMBERS = ("before", "value"), ("mean", "interval", "difference", "difference_interval")


@dataclass(frozen=True)
class Change:
    """A row of the table: the base, or the base with one setting changed from `before` to `value`."""

    card: Card
    key: str = BASE
    before: Any = None
    value: Any = None

    @property
    def name(self) -> str:
        """The stem of the files of this change."""
        return f"{self.key}-{hashlib.sha256(json.dumps(self.value).encode()).hexdigest()[:8]}"

    @property
    def words(self) -> str:
        """What messages call this change."""
        return self.key if self.key == BASE else f"{self.key}={to_word(self.value)}"


def ablate(changes: Sequence[Change], out: Path, pool: Pool, device: str | None) -> tuple[dict[str, str], str]:
    """Runs what is not done yet in the pool, and writes the table after each training.

    The first change is the base. Changes that differ only in how they act share a training. Returns why runs failed,
    by their names, and the table as text.
    """
    cards = Cards.of({change.name: change.card for change in changes}, (), lambda _, __, seed: out / f"seed-{seed}")
    words = {change.name: change.words for change in changes}

    def table() -> str:
        scores = {change.name: cards.scores(change.name, DATA) for change in changes}
        return write_table(changes[0].card, [row(change, changes[0], scores) for change in changes], out)

    def outcome(tasks: Sequence[Task]) -> str:
        table()
        means = [number_of(result.mean) for task in tasks if (result := seed_result(task))]
        return f"{changes[0].card.score} {', '.join(means)}"

    tasks = [replace(task, name=f"{words[task.cell[0]]} seed {task.seed}") for task in cards.tasks]
    failures = engine.run(tasks, pool, device, outcome)
    return failures, table()


def row(change: Change, base: Change, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """The numbers of a change, which are None until all of its seeds are done."""
    numbers = {"key": change.key, "before": change.before, "value": change.value, **dict.fromkeys(NUMBERS)}
    own_scores, base_scores = scores[change.name], scores[base.name]
    if len(own_scores) < len(change.card.seeds):
        return numbers
    whole = over_seeds(own_scores)
    numbers |= {"mean": whole.mean, "interval": whole.interval}
    if change is not base and len(base_scores) == len(own_scores):
        difference = over_seeds(np.subtract(own_scores, base_scores).tolist())  # paired by seed and episode
        numbers |= {"difference": difference.mean, "difference_interval": difference.interval}
    return numbers


def write_table(base: Card, rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes ablation.json and ablation.md, and returns the table of the latter."""
    write_json(folder / "ablation.json", to_json(base) | {"rows": list(rows)})
    text = markdown_table(COLUMNS, [[one["key"], *(to_word(one[key]) if one["key"] != BASE else "" for key in SETTINGS),
                                     *(number_of(one[key]) for key in NUMBERS)] for one in rows])
    header = (f"# {base.preset} on {base.data[0].dataset}, one setting changed\n\n{base.score} of the last checkpoints "
              f"of seeds {', '.join(map(str, base.seeds))}, {base.episodes_scored} episodes each, the same for "
              f"all; {base.protocol} protocol. Intervals are bootstrapped over seeds and episodes.")
    write_file(folder / "ablation.md", f"{header}\n\n{text}\n".encode())
    return text
