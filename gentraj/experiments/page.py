"""The page of all results, docs/results.md: for each table that cards name its scores, figures, comparisons over runs
and datasets, published scores and cards. It depends on the results only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..files import write_file
from ..plots.comparison import Curve, plot_intervals, plot_learning_curves
from ..plots.page import markdown_table
from .cards import Card, CardResult, DataResult
from .statistics import (
    Estimate,
    difference,
    estimate,
    interquartile_mean,
    number,
    probability_of_improvement,
    seeds_means,
)

SCORES = {"score_d4rl": "D4RL-normalised score", "score_minari": "Minari-normalised score",
          "return_mean": "return of an episode", "success_rate": "success rate"}
SHOWN = {"score_d4rl": (0.0, 100.0), "score_minari": (0.0, 100.0), "success_rate": (0.0, 1.0)}  # by every figure
DATA, AVERAGE = "the data", "average"

HEAD = """# Results

This page was written by

    gentraj reproduce CARD.json... --data DIR --results FOLDER --table {page}

The command trains and evaluates what the cards describe, with the data files in DIR, and continues where it was
interrupted. Without cards, it writes the page from the results in FOLDER. A card is a small file with all settings of
one or more runs.

## How to read the tables

An entry is the score of the *last* checkpoint, as a mean over training seeds and episodes. The episodes are the same
for all methods. The number after ± is half the width of the 95 % bootstrap interval, for which seeds and episodes are
resampled; with a single training seed, it does not include the variation between trainings. "{average}" is the mean
over the datasets, and "{data}" that of a dataset's own episodes. Where all episodes have the same score, the bootstrap
interval has no width, but a rate is not certain: if none of 50 independent episodes succeeds, the exact 95 % interval
of the success rate is 0 to 0.071.

"Over runs and datasets" has the rows with several training seeds. IQM is the interquartile mean over the runs on all
datasets, which leaves out the best and the worst quarter. "Above the next row" is the difference of the averages of a
row and the next one, paired by seed and episode if both have the same, and "probability of improvement" is the
probability that a run of the row scores higher than one of the next row on the same dataset. Brackets contain 95 %
intervals, for which the runs on each dataset are resampled (Agarwal et al. 2021); an interval that contains 0, or a
probability of 0.5, may be due to chance.

Published scores are from the papers, on their data. Ours are other data with the same names, so compare the order of
the methods and not the numbers. In figures of scores while training, a line is the mean over the training seeds, and
the shaded area their range."""
PROTOCOL = "The score is the {score}{protocol} of {episodes} episodes for each of the training seeds {seeds}."
NOT_AVERAGED = " The returns of different tasks have different scales and are not averaged."
CARDS = "Cards, with the updates and minutes of a training on one thread of a shared machine: {cards}."


# -- rows and tables


@dataclass(frozen=True)
class Row:
    """A row of a table: the results of a label by the names of their datasets."""

    label: str
    seeds: tuple[int, ...]
    """The seeds that the cards of the row ask for, in increasing order."""
    results: dict[str, DataResult] = field(default_factory=dict)

    def average(self, columns: Sequence[str]) -> Estimate | None:
        """The average over all columns; None if one is missing."""
        if not set(columns) <= self.results.keys():
            return None
        draws = [seeds_means([*self.results[column].by_seed.values()], i) for i, column in enumerate(columns)]
        return estimate(float(np.mean([self.results[column].mean for column in columns])), np.mean(draws, 0))

    def lead(self, other: Row, columns: Sequence[str]) -> Estimate:
        """How far the average is above that of another row, paired by seed and episode where they are the same."""
        return difference(*([row.results[column].by_seed for column in columns] for row in (self, other)))

    def means(self, columns: Sequence[str]) -> list[list[float]]:
        """For each column the score of each run."""
        return [self.results[column].means for column in columns]


@dataclass(frozen=True)
class ScoreTable:
    """The cards of one table; cards with the same label on different datasets share a row."""

    name: str
    cards: Mapping[str, CardResult]
    columns: tuple[str, ...]
    rows: Sequence[Row]
    """Best first."""

    @property
    def card(self) -> Card:
        return next(iter(self.cards.values())).card

    @property
    def stem(self) -> str:
        """What the names of its figures contain."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def is_averaged(self) -> bool:
        """Whether scores are averaged over the datasets; returns of several ones may have different scales."""
        return self.card.score != "return_mean" or len(self.columns) == 1

    def average(self, row: Row) -> Estimate | None:
        """The average of a row over all datasets; None if one is missing, or if they are not averaged."""
        return row.average(self.columns) if self.is_averaged else None

    @property
    def behaviour(self) -> dict[str, float]:
        """The scores of the datasets' own episodes, as far as they are defined."""
        found = {}
        for row in self.rows:
            for column, result in row.results.items():
                if result.behaviour is not None:
                    found[column] = result.behaviour
        if self.is_averaged and set(found) == set(self.columns):
            found[AVERAGE] = float(np.mean([found[column] for column in self.columns]))
        return found

    @classmethod
    def of(cls, name: str, cards: Mapping[str, CardResult]) -> ScoreTable:
        """Sorts the cards into rows and columns. Raises ValueError for cards that do not fit in one table."""
        first = next(iter(cards.values())).card
        data_of: dict[str, str] = {}  # the hash of the data of each column
        rows: dict[str, Row] = {}
        taken: set[tuple[str, str]] = set()
        most_columns_first = sorted(cards.items(), key=lambda pair: -len(pair[1].card.data))
        for file, result in most_columns_first:
            card = result.card
            for key in ("score", "protocol", "episodes"):
                if getattr(card, key) != getattr(first, key):
                    raise ValueError(f"the card {file} has {key} {getattr(card, key)}, and another of the table "
                                     f"'{name}' {getattr(first, key)}; give it a table of its own")
            row = rows.setdefault(card.label, Row(card.label, tuple(sorted(card.seeds))))
            if row.seeds != tuple(sorted(card.seeds)):
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have seeds "
                                 f"{row.seeds} and {card.seeds}; give them the same")
            for data in card.data:
                if (card.label, data.name) in taken:
                    raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have {data.name}; "
                                     "give each its own label")
                taken.add((card.label, data.name))
            for column, found in result.data.items():
                if data_of.setdefault(column, found.sha256) != found.sha256:
                    raise ValueError(f"the card {file} has learned from other data called {column} than another of the "
                                     f"table '{name}'; give its data another name, or train it on the same")
            row.results.update(result.data)
        columns = dict.fromkeys(data.name for _, result in most_columns_first for data in result.card.data)
        table = cls(name, cards, tuple(columns), [*rows.values()])

        def best_first(row: Row) -> tuple[float, str]:
            average = table.average(row)
            return np.inf if average is None else -average.mean, row.label

        return cls(name, cards, table.columns, sorted(table.rows, key=best_first))


def score_tables(results: Mapping[str, CardResult]) -> list[ScoreTable]:
    """The tables that the cards name. Raises ValueError for cards that do not fit in one table, and for two tables
    whose figures would have the same names."""
    names = dict.fromkeys(result.card.table for result in results.values())
    tables = [ScoreTable.of(name, {file: r for file, r in results.items() if r.card.table == name}) for name in names]
    stems = [stem for table in tables for stem in (table.stem, f"{table.stem}-curves")]
    if len(set(stems)) < len(stems):
        raise ValueError(f"the tables {', '.join(names)} have names that are too alike for the files of their figures; "
                         "give one of them another name")
    return tables


# -- the page


def write_page(results: Mapping[str, CardResult], path: Path) -> Path:
    """Writes the page, with figures in the folder `figures` beside it, and returns its path."""
    for table in score_tables(results):
        _draw(table, path.parent / _figure(table, path))
        curves = learning_curves(table)
        if curves:
            plot_learning_curves(curves, path.parent / _figure(table, path, "-curves"), SCORES[table.card.score],
                                 f"{table.name}: scores while training")
    return write_file(path, page(results, path).encode())


def page(results: Mapping[str, CardResult], path: Path) -> str:
    """The page as Markdown. `path` is where it will be written."""
    parts = [HEAD.format(page=shlex.quote(path.as_posix()), average=AVERAGE, data=DATA)]
    for table in score_tables(results):
        parts += [f"## {table.name}", _protocol(table), _scores(table), _picture(table.name, _figure(table, path)),
                  *over_runs(table), *published(table)]
        if learning_curves(table):
            parts.append(_picture(f"{table.name}, while training", _figure(table, path, "-curves")))
        parts.append(_cards(table))
    return "\n\n".join([*parts, _versions(results)]) + "\n"


def _protocol(table: ScoreTable) -> str:
    card = table.card
    protocol = "" if card.protocol == "random-goal" else f" (protocol {card.protocol})"
    text = PROTOCOL.format(score=SCORES[card.score], protocol=protocol, episodes=card.episodes_scored,
                           seeds=_seeds(table.rows))
    return text if table.is_averaged else text + NOT_AVERAGED


def _seeds(rows: Iterable[Row]) -> str:
    """The seeds of most rows, followed by the rows that have others."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(", ".join(map(str, row.seeds)), []).append(row.label)
    common, *others = sorted(labels, key=lambda seeds: -len(labels[seeds]))
    if not others:
        return common
    return f"{common} ({'; '.join(f'of {_listed(labels[seeds])}: {seeds}' for seeds in others)})"


def _scores(table: ScoreTable) -> str:
    columns = [*table.columns, *([AVERAGE] if table.is_averaged else [])]
    rows: list[Sequence[Any]] = []
    behaviour = table.behaviour
    if behaviour:
        rows.append([DATA, *(number(behaviour.get(column)) for column in columns)])
    for row in table.rows:
        cells = [_cell(row, row.results.get(column)) for column in table.columns]
        if table.is_averaged:
            cells.append(plus_minus(table.average(row)))
        rows.append([row.label, *cells])
    return markdown_table(["", *columns], rows)


def _cell(row: Row, result: DataResult | None) -> str:
    if result is None:
        return number(None)
    done, expected = len(result.seeds), len(row.seeds)
    return plus_minus(result.estimate) + (f" ({done} of {expected} seeds)" if done < expected else "")


def over_runs(table: ScoreTable) -> Iterator[str]:
    """Yields the table of comparisons over runs and datasets, if two rows have several runs on every dataset."""
    columns = table.columns
    rows = [row for row in table.rows
            if table.average(row) and all(len(result.seeds) > 1 for result in row.results.values())]
    if len(rows) < 2:
        return
    cells = []
    for i, row in enumerate(rows):
        means = row.means(columns)
        lead = improvement = None
        if i + 1 < len(rows):
            below = rows[i + 1]
            lead, improvement = row.lead(below, columns), probability_of_improvement(means, below.means(columns))
        cells.append((row.label, bracketed(interquartile_mean(means)), bracketed(lead), bracketed(improvement)))
    yield "### Over runs and datasets"
    yield markdown_table(("", "IQM", "above the next row", "probability of improvement"), cells)


def published(table: ScoreTable) -> Iterator[str]:
    """Yields the table of published scores of what was trained, and their sources, if the cards name any."""
    rows = []
    sources: dict[str, dict[str, None]] = {}
    for result in table.cards.values():
        for data in result.card.data:
            ours = result.data.get(data.name)
            if data.published is None or ours is None:
                continue
            steps = dict.fromkeys(f"{seed.step:,}" for seed in ours.seeds)
            rows.append((result.card.label, data.name, plus_minus(ours.estimate), ", ".join(steps),
                         number(data.published.score), f"{data.published.updates:,}"))
            sources.setdefault(data.published.source, {})[result.card.label] = None
    if rows:
        yield "### Published scores"
        yield markdown_table(("", "dataset", "ours", "updates", "published", "updates"), rows)
        listed = "; ".join(f"{_listed([*labels])}: {source}" for source, labels in sources.items())
        yield f"The sources are, for {listed}."


def _cards(table: ScoreTable) -> str:
    cards = []
    for file, result in table.cards.items():
        seeds = [seed for found in result.data.values() for seed in found.seeds]
        if seeds:
            steps = " and ".join(dict.fromkeys(f"{seed.step:,}" for seed in seeds))
            minutes = np.mean([seed.train_seconds for seed in seeds]) / 60
            cards.append(f"`{file}` ({steps}; {minutes:.1f})")
        else:
            cards.append(f"`{file}`")
    return CARDS.format(cards=", ".join(cards))


def _versions(results: Mapping[str, CardResult]) -> str:
    versions: dict[str, dict[str, None]] = {}
    for result in results.values():
        for data in result.data.values():
            for seed in data.seeds:
                for name, one in seed.versions.items():
                    versions.setdefault(name, {})[one] = None
    return f"Versions: {', '.join(f'{name} ' + ' and '.join(several) for name, several in versions.items())}."


# -- figures


def _figure(table: ScoreTable, path: Path, which: str = "") -> Path:
    """The path of a figure relative to the page."""
    return Path("figures") / f"{path.stem}-{table.stem}{which}.png"


def _picture(name: str, path: Path) -> str:
    """A picture in Markdown, whose links have no spaces."""
    return f"![{name}]({quote(path.as_posix())})"


def _draw(table: ScoreTable, path: Path) -> None:
    panels: dict[str, dict[str, Estimate]] = {column: {} for column in (*table.columns, AVERAGE)}
    for row in table.rows:
        for column, result in row.results.items():
            panels[column][row.label] = result.estimate
        average = table.average(row)
        if average is not None:
            panels[AVERAGE][row.label] = average
    plot_intervals({name: panel for name, panel in panels.items() if panel}, table.behaviour, path,
                   SCORES[table.card.score], f"{table.name}: mean and 95 % interval", DATA,
                   SHOWN.get(table.card.score))


def learning_curves(table: ScoreTable) -> dict[str, dict[str, Curve]]:
    """The learning curves of a table, by dataset and by label."""
    found: dict[str, dict[str, Curve]] = {}
    for column in table.columns:
        for row in table.rows:
            curve = learning_curve(row.results[column]) if column in row.results else None
            if curve is not None:
                found.setdefault(column, {})[row.label] = curve
    return found


def learning_curve(result: DataResult) -> Curve | None:
    """The mean and the range over the seeds at the steps that all of them were evaluated at; None without any."""
    seeds = [{point.step: point.mean for point in seed.curve} for seed in result.seeds]
    steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not steps:
        return None
    score_SP = np.array([[points[step] for step in steps] for points in seeds])
    return Curve(np.array(steps), score_SP.mean(0), score_SP.min(0), score_SP.max(0))


# -- numbers


def _listed(words: Sequence[str]) -> str:
    """The words as a sentence has them: A, B and C."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plus_minus(value: Estimate | None) -> str:
    """An estimate as its mean and half the width of its interval."""
    if value is None:
        return number(None)
    digits = 1 if abs(value.mean) >= 9.995 else 2
    return f"{number(value.mean)} ± {(value.high - value.low) / 2:.{digits}f}"


def bracketed(value: Estimate | None) -> str:
    """An estimate as "mean [low, high]"."""
    return number(None) if value is None else f"{number(value.mean)} {number(value.interval)}"
