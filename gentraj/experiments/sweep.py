"""`gentraj sweep`: a preset with many settings, as cards on the engine; the table is sorted by what is optimised.

It tries all combinations of a grid, one setting at a time, random settings, or those that a searcher of Optuna asks
for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

import numpy as np

from ..config import check_known, to_json, to_word, write_json
from ..files import write_file
from ..plots.page import markdown_table, show
from ..progress import say
from ..randomness import fold
from ..runs.run import RunConfig
from . import engine
from .cards import Card, Score
from .compare import group_of
from .comparison import MEASURES, Options, measure_of
from .engine import Task, digest
from .groups import Group
from .jobs import Pool
from .reproduce import Cards, seed_result
from .statistics import number, numbers, over_seeds

SCORES = get_args(Score)
DATA = "data"  # the name of the dataset in every card
BASE = "base"

Values = dict[str, Any]  # a value for each key that is varied
Rounds = Generator[list[Values], list[float | None], None]
"""Yields the values of the trials of a round, and is sent their results: higher is better, None is a failure."""


# -- what is tried


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible for all of them to be."""
        return self.values

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[rng.integers(len(self.values))]

    def distribution(self, optuna: ModuleType) -> Any:
        return optuna.distributions.CategoricalDistribution(range(len(self.values)))  # a value may be a list

    def value(self, asked: Any) -> Any:
        return self.values[asked]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, uniform or, with `log`, uniform in its logarithm."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise ValueError(f"{self.low:g}..{self.high:g} is no range; the first number must be below the second")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.low:g}..{self.high:g}:log begins at {self.low:g}; a number above 0 is expected")

    @property
    def ends(self) -> tuple[float, float]:
        """The values that must be possible for all of them to be."""
        return self.low, self.high

    def draw(self, rng: np.random.Generator) -> float:
        if self.log:
            return self.value(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        margin = 0.5 * self.whole
        return self.value(rng.uniform(self.low - margin, self.high + margin))

    def distribution(self, optuna: ModuleType) -> Any:
        if self.whole:
            return optuna.distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)

    def value(self, asked: float) -> float:
        """The number as it is tried: whole, or with four digits."""
        tried = float(f"{asked:.4g}")
        if self.whole:
            tried = round(asked)
        return min(max(tried, self.low), self.high)


Space = Mapping[str, Choice | Range]


@dataclass(frozen=True)
class SearchConfig:
    """How a sweep chooses the settings that it tries."""

    search: Literal["grid", "random", "tpe", "gp"] = "grid"
    """grid: all combinations; random: independent draws; tpe and gp: Optuna's tree-structured Parzen estimator and
    Gaussian process (extra scale)."""
    trials: int | None = None
    """Number of trials; needed unless the search is a grid."""
    round: int = 8
    """For tpe and gp: the number of trials that run at the same time; the searcher sees their results when all of them
    are done. What is tried does not depend on how fast the trials are, nor on where they run."""
    search_seed: int = 0
    """Seed of the search; the same seed tries the same settings. A larger number of trials adds to those of a smaller
    one."""
    one_at_a_time: bool = False
    """Try the preset and, instead of all combinations, each value alone; the table also has how far each is above the
    preset, paired by seed and episode."""

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("round", self.round)):
            if value is not None and value < 1:
                raise ValueError(f"SearchConfig.{name} is {value}; give at least 1")
        if self.search == "grid":
            if self.trials is not None:
                raise ValueError(f"SearchConfig.trials is {self.trials}, and a grid tries all combinations; leave it "
                                 "out, or give another SearchConfig.search")
            if self.search_seed != SearchConfig.search_seed:
                raise ValueError(f"SearchConfig.search_seed is {self.search_seed}, and a grid draws nothing; leave it "
                                 "out")
        elif self.trials is None:
            raise ValueError(f"SearchConfig.search is {self.search}, which goes on without end; give "
                             "SearchConfig.trials, the number of trials")
        elif self.one_at_a_time:
            raise ValueError(f"SearchConfig.one_at_a_time is set, and SearchConfig.search is {self.search}, which "
                             "varies all settings; leave one of them out")
        if self.search not in SEARCHERS and self.round != SearchConfig.round:
            raise ValueError(f"SearchConfig.round is {self.round}, and only {' and '.join(SEARCHERS)} search in "
                             "rounds; leave it out")

    def rounds(self, space: Space) -> Rounds:
        """The rounds of the search. Raises ValueError for a range in a grid, and ImportError without Optuna."""
        if self.search in SEARCHERS:
            if find_spec("optuna") is None:
                raise ImportError(f"--search {self.search} needs Optuna, which is not installed: "
                                  "pip install 'gentraj[scale]'")
            return self._optuna(space)
        if self.search == "random":
            rngs = [np.random.default_rng(fold(self.search_seed, i)) for i in range(self.trials or 0)]
            return _once([{key: each.draw(rng) for key, each in space.items()} for rng in rngs])
        choices = {key: each.values for key, each in space.items() if isinstance(each, Choice)}
        ranges = [key for key in space if key not in choices]
        if ranges:
            raise ValueError(f"--over {ranges[0]} is a range, which a grid cannot cover; give values separated by "
                             "commas, or --search random --trials N")
        if self.one_at_a_time:
            return _once([{}, *({key: value} for key, values in choices.items() for value in values)])
        return _once([dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values())])

    def _optuna(self, space: Space) -> Rounds:
        optuna = import_module("optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = SEARCHERS[self.search](optuna)(seed=self.search_seed % 2**32)
        study = optuna.create_study(sampler=sampler, direction="maximize")
        distributions = {key: each.distribution(optuna) for key, each in space.items()}
        left = self.trials or 0
        while left:
            asked = [study.ask(distributions) for _ in range(min(left, self.round))]
            left -= len(asked)
            results = yield [{key: each.value(trial.params[key]) for key, each in space.items()} for trial in asked]
            for trial, result in zip(asked, results, strict=True):
                study.tell(trial, result, optuna.trial.TrialState.FAIL if result is None else None)


SEARCHERS: dict[str, Callable[[ModuleType], Callable[..., Any]]] = {
    "tpe": lambda optuna: optuna.samplers.TPESampler, "gp": lambda optuna: optuna.samplers.GPSampler}


def _once(trials: list[Values]) -> Rounds:
    yield trials


# -- what is optimised


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises."""

    key: str = "return_mean"
    """A score of the evaluation, or the dotted key of a number that `gentraj compare` measures."""
    minimize: bool = False

    def __post_init__(self) -> None:
        if self.key not in SCORES:
            check_known([self.kind], [*SCORES, *MEASURES], "objective")

    @property
    def kind(self) -> str:
        """The score, or the name of the measure that has the number."""
        return self.key.partition(".")[0]

    @property
    def score(self) -> Score:
        """The score that the cards are evaluated by."""
        return cast(Score, self.key) if self.key in SCORES else "return_mean"

    def measured(self, task: Task, options: Options, groups: Callable[[RunConfig], Group]) -> Task:
        """The task with what has to be measured for the objective, in the place of its score."""
        if self.key in SCORES:
            return task
        measure = measure_of(self.kind, groups(task.config), options)
        return replace(task, measures=(replace(measure, name=f"{task.cell[0]}-{self.kind}"),))

    def value(self, task: Task) -> list[float]:
        """The number of a task that is done, or its score of each episode.

        Raises ValueError if what was measured has no such number.
        """
        if self.key in SCORES:
            result = seed_result(task)
            return list(result.scores) if result else []
        [measure] = task.measures
        found = numbers({self.kind: to_json(task.result(measure))})
        if self.key not in found:
            check_known([self.key], list(found), "objective")
        return [found[self.key]]


@dataclass(frozen=True)
class TrialResult:
    """A row of the table, whose numbers are None until all seeds are done."""

    values: Values
    seeds: int
    """The number of seeds that are done."""
    runs: list[str]
    mean: float | None = None
    interval: tuple[float, float] | None = None
    """95 % interval of the mean over seeds and episodes; a single number has none."""
    above_base: float | None = None
    """How far the mean is above that of the preset, paired by seed and episode."""
    above_base_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Trial:
    """The values that are tried, trained with every seed."""

    values: Values
    tasks: Sequence[Task]
    objective: Objective

    def scores(self) -> list[list[float]] | None:
        """The scores of the episodes of each seed; None until all seeds are done."""
        if not all(task.is_done for task in self.tasks):
            return None
        return [self.objective.value(task) for task in self.tasks]

    def result(self, base: Trial | None) -> TrialResult:
        """The row of the trial, beside the base if there is one."""
        done = sum(task.is_done for task in self.tasks)
        row = TrialResult(self.values, done, [str(task.run) for task in self.tasks])
        scores = self.scores()
        if scores is None:
            return row
        whole = over_seeds(scores)
        row = replace(row, mean=whole.mean, interval=whole.interval if sum(map(len, scores)) > 1 else None)
        if base is None or base is self or (base_scores := base.scores()) is None:
            return row
        above = over_seeds(np.subtract(scores, base_scores).tolist())
        return replace(row, above_base=above.mean, above_base_interval=above.interval)


# -- the experiment


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
    _trials: dict[str, Trial] = field(default_factory=dict, init=False)
    _groups: dict[Any, Group] = field(default_factory=dict, init=False)

    def run(self, pool: Pool) -> tuple[dict[str, str], str]:
        """Runs what is not done yet and writes the table after each job. Returns why runs failed, by their names, and
        the table as text."""
        failures: dict[str, str] = {}
        rounds = self.search.rounds(self.space)
        asked = next(rounds)
        while asked:
            new = self._new_trials({name_of(values): values for values in asked})
            self._trials.update(new)
            tasks = [task for trial in new.values() for task in trial.tasks]
            # By seed, so that a sweep that is stopped early has results of every trial.
            tasks.sort(key=lambda task: self.base.seeds.index(task.seed))
            failures |= engine.run(tasks, pool, self.options.device, self._outcome)
            try:
                asked = rounds.send([self._told(name_of(values)) for values in asked])
            except StopIteration:
                break
        return failures, self.write()

    def _told(self, name: str) -> float | None:
        """What a searcher is told of a trial: higher is better; None if it was refused or a seed has failed."""
        if name not in self._trials:
            return None
        mean = self._trials[name].result(None).mean
        if mean is not None and self.objective.minimize:
            return -mean
        return mean

    def _new_trials(self, asked: Mapping[str, Values]) -> dict[str, Trial]:
        """The trials that are new; a searcher may have asked for settings that are refused, which is said."""
        cards: dict[str, Card] = {}
        for name, values in asked.items():
            if name in self._trials:
                continue
            try:
                cards[name] = self.card(values)
            except ValueError as error:
                if self.search.search not in SEARCHERS:
                    raise
                say(f"{name}: {error}; left out")
        made = Cards.of(cards, (), lambda _, __, seed: self.out / f"seed-{seed}")
        return {name: Trial(asked[name], [self._task(asked[name], task) for task in made.of_cell(name, DATA)],
                            self.objective) for name in cards}

    def _task(self, values: Values, task: Task) -> Task:
        """The task of a card, named by the values, with what has to be measured of it."""
        words = " ".join(f"{key}={to_word(value)}" for key, value in values.items()) or BASE
        return self.objective.measured(replace(task, name=f"{words} seed {task.seed}"), self.options, self._group)

    def _group(self, config: RunConfig) -> Group:
        """The group of a run, whose data are read once."""
        key = tuple(getattr(config, name, None) for name in ("horizon", "stride", "joint", "stitch", "context"))
        if key not in self._groups:
            self._groups[key] = group_of(config, self.out / "windows")
        return self._groups[key]

    def _outcome(self, tasks: Sequence[Task]) -> str:
        self.write()
        means = [float(np.mean(self.objective.value(task))) for task in tasks]
        return f"{self.objective.key} {', '.join(map(show, means))}"

    def write(self) -> str:
        """Writes sweep.json and sweep.md, best first, and returns the table of the latter."""
        base, table = None, self._combinations
        if self.search.one_at_a_time:
            base, table = self._trials[name_of({})], self._one_at_a_time
        rows = [trial.result(base) for trial in self._trials.values()]
        rows.sort(key=lambda row: row.mean or 0.0, reverse=not self.objective.minimize)
        rows.sort(key=lambda row: row.mean is None)  # those that are not done come last
        asked = {"space": {key: to_json(each) for key, each in self.space.items()}, "search": to_json(self.search),
                 "objective": to_json(self.objective)}
        write_json(self.out / "sweep.json", to_json(self.base) | asked | {"rows": [to_json(row) for row in rows]})
        text = table(rows)
        header = (f"# {self.base.preset} on {self.base.data[0].dataset}, {len(rows)} settings\n\n{self.objective.key} "
                  f"of the last checkpoints of seeds {', '.join(map(str, self.base.seeds))}, best first. The best of "
                  "many is partly luck: train it again with other seeds before you report it.")
        write_file(self.out / "sweep.md", f"{header}\n\n{text}\n".encode())
        return text

    def _combinations(self, rows: Sequence[TrialResult]) -> str:
        columns = (*self.space, self.objective.key, "95 % interval", "seeds")
        return markdown_table(columns, [(*(to_word(row.values[key]) for key in self.space), row.mean, row.interval,
                                         f"{row.seeds} of {len(self.base.seeds)}") for row in rows])

    def _one_at_a_time(self, rows: Sequence[TrialResult]) -> str:
        columns = ("setting", "value", self.objective.key, "95 % interval", "minus base", "95 % interval of that")
        cells = []
        for row in rows:
            [(key, value)] = row.values.items() or [(BASE, "")]
            cells.append((key, to_word(value), number(row.mean), number(row.interval), number(row.above_base),
                          number(row.above_base_interval)))
        return markdown_table(columns, cells)


def name_of(values: Values) -> str:
    """The stem of the files of a trial."""
    return f"trial-{digest(values)[:12]}"
