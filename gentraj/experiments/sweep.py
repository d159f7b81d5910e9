"""`gentraj sweep`: a preset with many settings, on the engine; the table is sorted by what is optimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from ..config import check_known, to_json, to_word
from ..files import write_file
from ..plots.page import markdown_table, show
from ..progress import say
from ..runs.kinds import AnyRunConfig
from . import engine
from .ablate import DATA
from .cards import Card, Score
from .compare import group_of
from .compare_measures import MEASURES, Options
from .engine import Measure, Task, digest, write_json
from .groups import Group
from .processes import Pool
from .reproduce import Cards, seed_result
from .searching import SearchConfig, Space, Values
from .statistics import numbers, over_seeds

SCORES = get_args(Score)


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises."""

    key: str = "return_mean"
    """A score of the evaluation, or the dotted key of a number that `gentraj compare` measures."""
    minimize: bool = False

    def __post_init__(self) -> None:
        if self.key not in SCORES:
            check_known([self.key.partition(".")[0]], [*SCORES, *MEASURES], "objective")

    @property
    def score(self) -> Score:
        """The score that the cards are evaluated by."""
        return cast(Score, self.key) if self.key in SCORES else "return_mean"

    def measured(self, task: Task, options: Options, groups: Callable[[AnyRunConfig], Group]) -> Task:
        """The task with what has to be measured for the objective, in the place of its score."""
        if self.key in SCORES:
            return task
        kind, group = self.key.partition(".")[0], groups(task.config)
        asked = {"windows": group.sha256, "episodes": options.episodes, "num": options.num}
        make = partial(MEASURES[kind], group=group, options=options)
        return replace(task, measures=(Measure(f"{task.cell[0]}-{kind}", make, asked),))

    def value(self, task: Task) -> list[float]:
        """The number of a task that is done, or its score of each episode.

        Raises ValueError if what was measured has no such number.
        """
        if self.key in SCORES:
            result = seed_result(task)
            return list(result.scores) if result else []
        found = numbers({self.key.partition(".")[0]: next(iter(task.results.values()))})
        if self.key not in found:
            check_known([self.key], list(found), "objective")
        return [found[self.key]]


@dataclass(frozen=True)
class Trial:
    """A row of the table: one value for each key that is varied, trained with every seed."""

    values: Values
    tasks: Sequence[Task]
    objective: Objective

    @property
    def row(self) -> dict[str, Any]:
        """The numbers of the trial, which are None until all of its seeds are done. A single number has no interval."""
        done = [self.objective.value(task) for task in self.tasks if task.is_done]
        row = {"values": self.values, "mean": None, "interval": None, "seeds": len(done),
               "runs": [str(task.run) for task in self.tasks]}
        if len(done) == len(self.tasks):
            whole = over_seeds(done)
            row |= {"mean": whole.mean, "interval": whole.interval if sum(map(len, done)) > 1 else None}
        return row

    @property
    def result(self) -> float | None:
        """The mean over seeds, turned so that higher is better; None if a seed has failed."""
        mean = self.row["mean"]
        return -mean if mean is not None and self.objective.minimize else mean


@dataclass(frozen=True)
class Sweep:
    """Trials of a base with other settings. `card` returns the card of the base with such settings, or raises
    ValueError for those that it cannot have."""

    base: Card
    card: Callable[[Values], Card]
    space: Space
    search: SearchConfig
    objective: Objective
    options: Options
    out: Path
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    _groups: dict[Any, Group] = field(default_factory=dict, init=False)

    def run(self, pool: Pool) -> tuple[dict[str, str], str]:
        """Runs what is not done yet and writes the table after each job. Returns why runs failed, by their names, and
        the table as text."""
        trials, failures = dict[str, Trial](), dict[str, str]()
        rounds = self.search.rounds(self.space)
        asked = next(rounds)
        while asked:
            names = [name_of(values) for values in asked]
            new = self._trials({name: values for name, values in zip(names, asked, strict=True) if name not in trials})
            trials |= new
            tasks = sorted((task for trial in new.values() for task in trial.tasks), key=self._rank)
            self._rows.update({name: trial.row for name, trial in new.items()})
            failures |= engine.run(tasks, pool, self.options.device, partial(self._outcome, trials))
            try:
                asked = rounds.send([trials[name].result if name in trials else None for name in names])
            except StopIteration:
                break
        return failures, self.write()

    def _rank(self, task: Task) -> int:
        return self.base.seeds.index(task.seed)  # so that a sweep that is stopped early has results of every trial

    def _trials(self, values: Mapping[str, Values]) -> dict[str, Trial]:
        """The trials by their names; a searcher may have asked for settings that are refused, which is said."""
        cards: dict[str, Card] = {}
        for name, each in values.items():
            try:
                cards[name] = self.card(each)
            except ValueError as error:
                if self.search.search in ("grid", "random"):
                    raise
                say(f"{name}: {error}; left out")
        made = Cards.of(cards, (), lambda _, __, seed: self.out / f"seed-{seed}")
        return {name: Trial(values[name], [self._task(values[name], task) for task in made.of_cell(name, DATA)],
                            self.objective) for name in cards}

    def _task(self, values: Values, task: Task) -> Task:
        """The task of a card, named by the values, with what has to be measured of it."""
        words = " ".join(f"{key}={to_word(value)}" for key, value in values.items())
        return self.objective.measured(replace(task, name=f"{words} seed {task.seed}"), self.options, self._group)

    def _group(self, config: AnyRunConfig) -> Group:
        """The group of a run, whose data are read once."""
        key = *(getattr(config, name, None) for name in ("horizon", "stride", "joint", "stitch")), config.context
        if key not in self._groups:
            self._groups[key] = group_of(config, self.out / "windows")
        return self._groups[key]

    def _outcome(self, trials: Mapping[str, Trial], tasks: Sequence[Task]) -> str:
        for name in {task.cell[0] for task in tasks}:
            self._rows[name] = trials[name].row
        self.write()
        means = [sum(values) / len(values) for values in map(self.objective.value, tasks)]
        return f"{self.objective.key} {', '.join(map(show, means))}"

    def write(self) -> str:
        """Writes sweep.json and sweep.md, best first, and returns the table of the latter."""
        worst = math.inf if self.objective.minimize else -math.inf
        sign = 1 if self.objective.minimize else -1
        rows = sorted(self._rows.values(), key=lambda row: sign * (worst if row["mean"] is None else row["mean"]))
        asked = {"space": {key: to_json(each) for key, each in self.space.items()}, "search": to_json(self.search),
                 "objective": to_json(self.objective)}
        write_json(self.out / "sweep.json", to_json(self.base) | asked | {"rows": rows})
        text = markdown_table((*self.space, self.objective.key, "95 % interval", "seeds"), [
            [*(to_word(row["values"][key]) for key in self.space), row["mean"], row["interval"],
             f"{row['seeds']} of {len(self.base.seeds)}"] for row in rows])
        header = (f"# {self.base.preset} on {self.base.data[0].dataset}, {len(rows)} settings\n\n{self.objective.key} "
                  f"of the last checkpoints of seeds {', '.join(map(str, self.base.seeds))}, best first. The best of "
                  "many is partly luck: train it again with other seeds before you report it.")
        write_file(self.out / "sweep.md", f"{header}\n\n{text}\n".encode())
        return text


def name_of(values: Values) -> str:
    """The stem of the files of a trial."""
    return f"trial-{digest(values)[:12]}"
