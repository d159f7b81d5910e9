"""`gentraj ablate`: a preset as it is, and the same with one setting changed, for each value given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import to_json
from ..files import write_file
from ..runs.model_card import markdown_table
from . import engine
from .cards import Card
from .engine import Task, write_json
from .reproduce import Cards
from .results_page import number as number_of
from .statistics import Scores, over_seeds

BASE = "base"
DATA = "data"  # the name of the dataset in every card
WORDS = {"None": None, "True": True, "False": False}  # as the options of other commands; else JSON, else text
COLUMNS = ("setting", "base", "changed to", "mean", "95 % interval", "minus base", "95 % interval of that")
SETTINGS, NUMBERS = ("before", "value"), ("mean", "interval", "difference", "difference_interval")


@dataclass(frozen=True)
class Change:
    """A row: a setting with another value than the base's, or the base itself."""

    card: Card
    key: str = BASE
    before: Any = None
    value: Any = None

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.key}-{hashlib.sha256(json.dumps(self.value).encode()).hexdigest()[:8]}"


def ablate(changes: Sequence[Change], out: Path, number: int, device: str | None) -> tuple[dict[str, str], str]:
    """Does what is not done yet, and writes the table after each training; why runs failed, and the table.

    The first change is the base. All that differ from each other only in how they plan share a training.
    """
    cards = Cards.of({change.name: change.card for change in changes}, (), lambda _, __, seed: out / f"seed-{seed}")

    def table() -> str:
        scores = {change.name: cards.scores(change.name, DATA) for change in changes}
        return write_table(changes[0].card, [row(change, changes[0], scores) for change in changes], out)

    def outcome(tasks: Sequence[Task]) -> str:
        table()
        return f"{len(tasks)} rows of the table"

    failures = engine.run(cards.tasks, number, device, outcome)
    return failures, table()


def row(change: Change, base: Change, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What is known of a change: None where it is not done with all seeds."""
    found = {"key": change.key, "before": change.before, "value": change.value, **dict.fromkeys(NUMBERS)}
    mine, others = scores[change.name], scores[base.name]
    if len(mine) < len(change.card.seeds):
        return found
    whole = over_seeds(mine)
    found |= {"mean": whole.mean, "interval": whole.interval}
    if change is not base and len(others) == len(mine):
        apart = over_seeds(np.subtract(mine, others).tolist())  # of each seed and episode
        found |= {"difference": apart.mean, "difference_interval": apart.interval}
    return found


def write_table(base: Card, rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes ablation.json and ablation.md; returns the latter's table."""
    write_json(folder / "ablation.json", to_json(base) | {"rows": list(rows)})
    text = markdown_table(COLUMNS, [[one["key"], *(show(one[key]) if one["key"] != BASE else "" for key in SETTINGS),
                                     *(number_of(one[key]) for key in NUMBERS)] for one in rows])
    about = (f"# {base.preset} on {base.data[0].dataset}, one setting changed\n\n{base.score} of the last checkpoints "
             f"of seeds {', '.join(map(str, base.seeds))}, {base.episodes} episodes each, the same for all; "
             f"{base.protocol} protocol. Intervals are bootstrapped over seeds and of each its episodes.")
    write_file(folder / "ablation.md", f"{about}\n\n{text}\n".encode())
    return text


def show(value: Any) -> str:
    """As it is given."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {json.dumps(known): word for word, known in WORDS.items()}.get(text, text)
