"""Pages of results in Markdown, with figures in a folder beside them. All experiments write theirs by `write_parts`:
`write_page` that of cards, such as docs/results.md, and `gentraj compare` its own with the same table of scores."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from pathlib import Path
from urllib.parse import quote

import numpy as np

from gentraj.envs.making import ProtocolName

from ..files import write_file
from ..plots.comparison import plot_intervals
from ..plots.page import markdown_table
from .cards import CardResult, DataResult, Score, episodes_scored
from .statistics import (
    Estimate,
    average,
    difference,
    interquartile_mean,
    number,
    probability_of_improvement,
)

SCORES = {"score_d4rl": "D4RL-normalised score", "score_minari": "Minari-normalised score",
          "return_mean": "return of an episode", "success_rate": "success rate"}
SHOWN = {"score_d4rl": (0.0, 100.0), "score_minari": (0.0, 100.0), "success_rate": (0.0, 1.0)}  # by every figure
DATA, AVERAGE = "the data", "average"

HEAD = """# Results

This page was written by

    gentraj reproduce CARD.json... --data DIR --results FOLDER --table {page}

The command trains and evaluates what the cards describe, with the data files in DIR. Without cards, it writes the page
from the results in FOLDER. A card is a small file with all settings of one or more runs.

## How to read the tables

An entry is the score of the *last* checkpoint, as a mean over training seeds and episodes. The episodes are the same
for all methods. The number after ± is half the width of the 95 % interval (Student's, of the variance between
trainings and between the episodes that they share). With two training seeds, it covered the mean in 88 to 95 % of
simulated cases; with one, it does not include the variation between trainings. "{average}" is the mean over the
datasets, and "{data}" that of a dataset's own episodes. Where all episodes succeed, or none does, brackets contain the
exact interval of as many independent episodes. The milliseconds of a card are those of a decision for up to 25
episodes at once.

"Over runs and datasets" has the rows with several training seeds. IQM is the interquartile mean over the runs on all
datasets, which leaves out the best and the worst quarter. "Above the next row" is the difference of the averages of a
row and the next one, paired by seed and episode if both have the same, and "probability of improvement" is the
probability that a run of the row scores higher than one of the next row on the same dataset (Agarwal et al. 2021).
Brackets contain 95 % intervals: the bootstrap over the runs of each dataset, widened to Student's, for IQM, and the
score interval of the Mann-Whitney statistic (Newcombe 2006) for the probability. Rows whose interval contains 0, or a
probability of 0.5, do not differ beyond chance: their order is a tie.

Published scores are from the papers, on their data. Ours are other data with the same names, so compare the order of
the methods and not the numbers. gentraj's `docs/published.md` has the best published score of each task beside ours."""
PROTOCOL = "The score is the {score}{protocol} of {episodes} episodes{of_seed} for each of the training seeds {seeds}."
MARK = "†"
SEEN = MARK + " The settings were chosen by episodes that are scored here, so that the score is too high on average."
CHOSEN = "How the settings were chosen, where it was noted:"
NOT_AVERAGED = " The returns of different tasks have different scales and are not averaged."
CARDS = "Cards, with the updates and minutes of a training on one thread of a shared machine: {cards}."


# -- rows and tables


@dataclass(frozen=True)
class Row:
    """A row of a table: the results of a label by the names of their datasets."""

    label: str
    seeds: tuple[int, ...]
    """The seeds that are asked for, in increasing order."""
    results: dict[str, DataResult] = field(default_factory=dict)

    def average(self, columns: Sequence[str], score: Score) -> Estimate | None:
        """The average of this score over all columns; None if one is missing."""
        if not set(columns) <= self.results.keys():
            return None
        return average([self.results[column].over_seeds(score) for column in columns]).estimate

    def lead(self, other: Row, columns: Sequence[str], score: Score) -> Estimate:
        """How far the average is above that of another row, paired by seed and episode where they are the same."""
        return difference([self.results[column].by_seed for column in columns],
                          [other.results[column].by_seed for column in columns], successes=score == "success_rate")

    def means(self, columns: Sequence[str]) -> list[list[float]]:
        """For each column the score of each run."""
        return [self.results[column].means for column in columns]


@dataclass(frozen=True)
class ScoreTable:
    """Rows of scores of the same kind on the same datasets."""

    name: str
    score: Score
    protocol: ProtocolName
    episodes: int
    """The number of episodes that a run is scored in."""
    columns: tuple[str, ...]
    rows: Sequence[Row]
    base: str | None = None
    """The label of the row that the others are compared with; None to compare each row with the next one."""
    cards: Mapping[str, CardResult] = field(default_factory=dict)
    """The cards of the rows, by their names."""

    def __str__(self) -> str:
        """The scores in Markdown, and how far each row is above that of `base`, if there is one."""
        base = next((row for row in self.rows if row.label == self.base), None)
        if base is None or not self.is_averaged or len(self.rows) < 2:
            return score_table(self)
        above = {row.label: bracketed(row.lead(base, self.columns, self.score)) for row in self.rows
                 if row is not base and row.label in self.averages}
        return score_table(self, {f"above {self.base}": above})

    @property
    def stem(self) -> str:
        """What the names of its figures contain."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """The rows that say how their settings were chosen: their labels, and how."""
        return [(result.card.label, result.card.chosen) for result in self.cards.values() if result.card.chosen]

    @property
    def seen(self) -> list[str]:
        """The labels of the rows whose settings were chosen by episodes that are shown."""
        return [result.card.label for result in self.cards.values() if result.card.seen]

    @property
    def is_averaged(self) -> bool:
        """Whether scores are averaged over the datasets; returns of several ones may have different scales."""
        return self.score != "return_mean" or len(self.columns) == 1

    @cached_property
    def averages(self) -> dict[str, Estimate]:
        """The average over all datasets of each row that has a result on every one, by its label."""
        averages = {row.label: row.average(self.columns, self.score) for row in self.rows if self.is_averaged}
        return {label: average for label, average in averages.items() if average is not None}

    @property
    def behaviour(self) -> dict[str, float]:
        """The scores of the datasets' own episodes, as far as they are defined."""
        found = {column: result.behaviour for row in self.rows for column, result in row.results.items()
                 if result.behaviour is not None}
        if self.is_averaged and len(found) == len(self.columns) > 1:
            found[AVERAGE] = float(np.mean([found[column] for column in self.columns]))
        return found

    def best_first(self) -> ScoreTable:
        """The table with its rows sorted by their averages."""
        def key(row: Row) -> tuple[float, str]:
            whole = self.is_averaged and row.results.keys() >= set(self.columns)
            if not whole:
                return np.inf, row.label
            return -float(np.mean([row.results[column].mean for column in self.columns])), row.label

        return replace(self, rows=sorted(self.rows, key=key))

    @classmethod
    def of(cls, name: str, cards: Mapping[str, CardResult], base: str | None = None) -> ScoreTable:
        """Sorts the cards into rows and columns; cards with the same label on different datasets share a row.

        Raises ValueError for cards that do not fit in one table.
        """
        first = next(iter(cards.values())).card
        hashes: dict[str, str] = {}  # of the data of each column
        rows: dict[str, Row] = {}
        taken: set[tuple[str, str]] = set()
        most_columns_first = sorted(cards.items(), key=lambda pair: -len(pair[1].card.data))
        for file, result in most_columns_first:
            card, seeds = result.card, tuple(sorted(result.card.seeds))
            for key in ("score", "protocol", "episodes", "episode_seed"):
                if getattr(card, key) != getattr(first, key):
                    raise ValueError(f"the card {file} has {key} {getattr(card, key)}, and another of the table "
                                     f"'{name}' {getattr(first, key)}; give it a table of its own")
            row = rows.setdefault(card.label, Row(card.label, seeds))
            if row.seeds != seeds or not taken.isdisjoint((card.label, data.name) for data in card.data):
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have other seeds or "
                                 f"the same data, such as {file}; give each its own label")
            taken.update((card.label, data.name) for data in card.data)
            for column, found in result.data.items():
                if hashes.setdefault(column, found.sha256) != found.sha256:
                    raise ValueError(f"the card {file} has learned from other data called {column} than another of the "
                                     f"table '{name}'; give its data another name, or train it on the same")
            row.results.update(result.data)
        columns = tuple(dict.fromkeys(data.name for _, result in most_columns_first for data in result.card.data))
        return cls(name, first.score, first.protocol, episodes_scored(first), columns, [*rows.values()], base,
                   cards).best_first()


def score_tables(results: Mapping[str, CardResult], base: str | None = None) -> list[ScoreTable]:
    """The tables that the cards name. Raises ValueError for cards that do not fit in one table, and for two tables
    whose figures would have the same names."""
    names = dict.fromkeys(result.card.table for result in results.values())
    tables = [ScoreTable.of(name, {file: r for file, r in results.items() if r.card.table == name}, base)
              for name in names]
    if len({table.stem for table in tables}) < len(tables):
        raise ValueError(f"the tables {', '.join(names)} have names that are too alike for the files of their figures; "
                         "give one of them another name")
    return tables


# -- the page


def write_page(results: Mapping[str, CardResult], path: Path, head: str = HEAD, base: str | None = None) -> Path:
    """Writes the page of these results, which begins with `head`, and returns its path."""
    parts = [head.format(page=shlex.quote(path.as_posix()), average=AVERAGE, data=DATA)]
    for table in score_tables(results, base):
        parts += [*table_parts(table, path), *over_runs(table), *published(table), _cards(table)]
    versions: dict[str, dict[str, None]] = {}
    for result in results.values():
        for data in result.data.values():
            for seed in data.seeds:
                for name, one in seed.versions.items():
                    versions.setdefault(name, {})[one] = None
    parts.append(f"Versions: {', '.join(f'{name} ' + ' and '.join(several) for name, several in versions.items())}.")
    return write_parts(path, parts)


def write_parts(path: Path, parts: Iterable[str]) -> Path:
    """Writes a page of paragraphs, headings, tables and pictures, and returns its path."""
    return write_file(path, ("\n\n".join(parts) + "\n").encode())


def picture(name: str, page: Path, file: str, draw: Callable[[Path], object]) -> str:
    """Draws a figure of a page into the folder `figures` beside it; returns it in Markdown, whose links have no
    spaces."""
    path = Path("figures") / f"{page.stem}-{file}.png"
    draw(page.parent / path)
    return f"![{name}]({quote(path.as_posix())})"


def table_parts(table: ScoreTable, path: Path, more: Mapping[str, Mapping[str, str]] | None = None) -> Iterator[str]:
    """Yields the scores of a table, with the further columns `more`, and their figure."""
    protocol = "" if table.protocol == "random-goal" else f" (protocol {table.protocol})"
    seed = max((result.card.episode_seed for result in table.cards.values()), default=0)
    of_seed = f" (`--seed {seed}` of `gentraj evaluate`)" if seed else ""
    text = PROTOCOL.format(score=SCORES[table.score], protocol=protocol, episodes=table.episodes, of_seed=of_seed,
                           seeds=_seeds(table.rows))
    yield f"## {table.name}"
    yield text if table.is_averaged else text + NOT_AVERAGED
    leagues = [(result.card.label, result.card.league) for result in table.cards.values() if result.card.league]
    if leagues:
        yield "What other scores may be compared with these:"
        yield by_label(leagues)
    yield score_table(table, more)
    if table.seen:
        yield SEEN
    if table.chosen:
        yield CHOSEN
        yield by_label(table.chosen)
    yield picture(table.name, path, table.stem, lambda file: _draw(table, file))


def _seeds(rows: Iterable[Row]) -> str:
    """The seeds of most rows, followed by the rows that have others."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(", ".join(map(str, row.seeds)), []).append(row.label)
    common, *others = sorted(labels, key=lambda seeds: -len(labels[seeds]))
    if not others:
        return common
    return f"{common} ({'; '.join(f'of {_listed(labels[seeds])}: {seeds}' for seeds in others)})"


def score_table(table: ScoreTable, more: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The scores in Markdown; `more` are further columns, each with its cells by label."""
    more = more or {}
    averaged = table.is_averaged and len(table.columns) > 1
    columns = [*table.columns, *([AVERAGE] if averaged else [])]
    rows: list[list[str]] = []
    behaviour = table.behaviour
    if behaviour:
        rows.append([DATA, *(number(behaviour.get(column)) for column in columns), *("" for _ in more)])
    for row in table.rows:
        cells = [_cell(row, row.results.get(column), table.score) for column in table.columns]
        if averaged:
            cells.append(plus_minus(table.averages.get(row.label), table.score))
        name = f"{row.label} {MARK}" if row.label in table.seen else row.label
        rows.append([name, *cells, *(column.get(row.label, "") for column in more.values())])
    return markdown_table(["", *columns, *more], rows)


def _cell(row: Row, result: DataResult | None, score: Score) -> str:
    if result is None:
        return number(None)
    done, expected = len(result.seeds), len(row.seeds)
    return plus_minus(result.over_seeds(score).estimate, score) + (
        f" ({done} of {expected} seeds)" if done < expected else "")


def over_runs(table: ScoreTable) -> Iterator[str]:
    """Yields the table of comparisons over runs and datasets: with the base if there is one, and otherwise of the rows
    that have several runs on every dataset, if there are at least two."""
    columns = table.columns
    rows = [row for row in table.rows if row.label in table.averages
            and (table.base is not None or all(len(result.seeds) > 1 for result in row.results.values()))]
    base = next((row for row in rows if row.label == table.base), None)
    if len(rows) < 2 or (table.base is not None and base is None):
        return
    cells = []
    for row, below in zip(rows, [*rows[1:], None], strict=True):
        other, means = base or below, row.means(columns)
        lead = improvement = None
        if other is not None and other is not row:
            lead = row.lead(other, columns, table.score)
            improvement = probability_of_improvement(means, other.means(columns))
        cells.append((row.label, bracketed(interquartile_mean(means)), bracketed(lead), bracketed(improvement)))
    yield "### Over runs and datasets"
    yield markdown_table(("", "IQM", f"above {table.base or 'the next row'}", "probability of improvement"), cells)


def published(table: ScoreTable) -> Iterator[str]:
    """Yields the table of published scores of what was trained, and their sources, if the cards name any."""
    rows: list[tuple[str, ...]] = []
    sources: list[tuple[str, str]] = []
    for result in table.cards.values():
        for data in result.card.data:
            if data.published is None or data.name not in result.data:
                continue
            rows.append((result.card.label, data.name, number(data.published.score), _count(data.published.updates)))
            sources.append((result.card.label, data.published.source))
    if rows:
        yield "### Published scores"
        yield markdown_table(("", "dataset", "published", "updates"), rows)
        yield "The sources:"
        yield by_label(sources)


def _cards(table: ScoreTable) -> str:
    cards = []
    for file, result in table.cards.items():
        seeds = [seed for found in result.data.values() for seed in found.seeds]
        if seeds:
            steps = " and ".join(dict.fromkeys(f"{seed.step:,}" for seed in seeds))
            minutes = np.mean([seed.train_seconds for seed in seeds]) / 60
            costs = [steps, f"{minutes:.1f}"]
            if decisions := [seed.decision_ms for seed in seeds if seed.decision_ms is not None]:
                costs.append(f"{np.median(decisions):.3g} ms")
            cards.append(f"`{file}` ({'; '.join(costs)})")
        else:
            cards.append(f"`{file}`")
    return CARDS.format(cards=", ".join(cards))


# -- figures


def _draw(table: ScoreTable, path: Path) -> None:
    panels: dict[str, dict[str, Estimate]] = {column: {} for column in table.columns}
    for row in table.rows:
        for column, result in row.results.items():
            panels[column][row.label] = result.over_seeds(table.score).estimate
    if len(table.columns) > 1:
        panels[AVERAGE] = table.averages
    plot_intervals({name: panel for name, panel in panels.items() if panel}, table.behaviour, path,
                   SCORES[table.score], f"{table.name}: mean and 95 % interval", DATA, SHOWN.get(table.score))


# -- numbers


def by_label(texts: Iterable[tuple[str, str]]) -> str:
    """A list in Markdown of texts about labels, each once, after the labels that it is about."""
    labels: dict[str, dict[str, None]] = {}
    for label, text in texts:
        labels.setdefault(text, {})[label] = None
    return "\n".join(f"- {_listed([*about])}: {text}" for text, about in labels.items())


def _listed(words: Sequence[str]) -> str:
    """The words as a sentence has them: A, B and C."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _count(value: int | None) -> str:
    return number(None) if value is None else f"{value:,}"


def plus_minus(value: Estimate | None, score: Score) -> str:
    """A mean score and the farther end of its interval, or both ends where all episodes succeed, or none does."""
    if value is None:
        return number(None)
    if value.high == inf:
        return bracketed(value)
    if score == "success_rate" and value.mean in (0.0, 1.0):
        return f"{number(value.mean)} [{value.low:.3f}, {value.high:.3f}]"
    digits = 1 if abs(value.mean) >= 9.995 else 2
    return f"{number(value.mean)} ± {max(value.high - value.mean, value.mean - value.low):.{digits}f}"


def bracketed(value: Estimate | None) -> str:
    """An estimate as "mean [low, high]"."""
    return number(None) if value is None else f"{number(value.mean)} {number(value.interval)}"
