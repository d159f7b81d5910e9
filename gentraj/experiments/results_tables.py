"""The tables that cards name: rows of labels, columns of datasets, and what summarises a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import NamedTuple

import numpy as np

from .cards import Card
from .results import CardResult, DataResult
from .statistics import Estimate, difference, estimate, interquartile_mean, probability_of_improvement, seeds_means


class Row(NamedTuple):
    """A row of a table: the results of a label by the names of their datasets."""

    label: str
    seeds: tuple[int, ...]
    """The seeds that the cards of the row ask for, in increasing order."""
    results: Mapping[str, DataResult]

    @property
    def is_single(self) -> bool:
        """Whether some dataset has a single run, of which nothing tells how runs vary."""
        return any(len(result.seeds) == 1 for result in self.results.values())

    def is_whole(self, columns: Sequence[str]) -> bool:
        """Whether the row has a result in each of the columns."""
        return set(columns) <= self.results.keys()

    def average(self, columns: Sequence[str]) -> Estimate | None:
        """The average over all columns; None if one is missing."""
        if not self.is_whole(columns):
            return None
        draws = [seeds_means([*self.results[column].by_seed.values()], i) for i, column in enumerate(columns)]
        return estimate(float(np.mean([self.results[c].mean for c in columns])), np.mean(draws, 0))

    def interquartile_mean(self, columns: Sequence[str]) -> Estimate:
        """The interquartile mean over the runs of all columns, each of which must have a result."""
        return interquartile_mean([self.results[column].means for column in columns])

    def last_evaluations(self, columns: Sequence[str]) -> float | None:
        """The average of the means over the last three evaluations of each training; None if one is not known."""
        means = [[seed.last_evaluations for seed in self.results[column].seeds] for column in columns]
        known = [[mean for mean in seeds if mean is not None] for seeds in means]
        return float(np.mean([np.mean(seeds) for seeds in known])) if known == means else None

    def lead(self, other: Row, columns: Sequence[str]) -> Estimate:
        """How far the average is above that of another row, paired by seed and episode where they are the same."""
        return difference(*([row.results[column].by_seed for column in columns] for row in (self, other)))

    def improvement(self, other: Row, columns: Sequence[str]) -> Estimate:
        """How probable it is that a run scores more than one of another row on the same dataset."""
        return probability_of_improvement(*([row.results[column].means for column in columns] for row in (self, other)))


class Family(NamedTuple):
    """The cards of one table; cards with the same label on different datasets share a row."""

    name: str
    stem: str
    """What the names of its figures contain; no two tables of a page have the same."""
    cards: Mapping[str, CardResult]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    behaviour: Mapping[str, float | None]

    @property
    def card(self) -> Card:
        return next(iter(self.cards.values())).card

    @property
    def is_averaged(self) -> bool:
        """Whether scores are averaged over the datasets; returns of several ones may have different scales."""
        return self.card.score != "return_mean" or len(self.columns) == 1

    @property
    def whole_rows(self) -> list[Row]:
        """The rows that have an average over all datasets, best first."""
        return [row for row in self.rows if row.is_whole(self.columns)] if self.is_averaged else []

    def average(self, row: Row) -> Estimate | None:
        """The average of a row over all datasets; None if one is missing, or if they are not averaged."""
        return row.average(self.columns) if self.is_averaged else None

    @classmethod
    def of(cls, name: str, stem: str, cards: Mapping[str, CardResult]) -> Family:
        """Sorts the cards into rows and columns. Raises ValueError for cards that do not fit in one table."""
        first = next(iter(cards.values())).card
        columns, behaviour, rows, taken, seeds = [], {}, {}, set(), {}
        for file, result in sorted(cards.items(), key=lambda pair: -len(pair[1].card.data)):  # most columns first
            card, data = result.card, result.data
            for key in ("score", "protocol", "episodes"):
                if getattr(card, key) != getattr(first, key):
                    raise ValueError(f"the card {file} has {key} {getattr(card, key)}, and another of the table "
                                     f"'{name}' {getattr(first, key)}; give it a table of its own")
            if (others := seeds.setdefault(card.label, own := tuple(sorted(card.seeds)))) != own:
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have seeds {others} "
                                 f"and {own}; give them the same")
            cells = [(card.label, one.name) for one in card.data]
            if both := [column for label, column in cells if (label, column) in taken]:
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have {', '.join(both)}"
                                 "; give each its own label")
            taken |= set(cells)
            columns += [column for _, column in cells]
            rows.setdefault(card.label, {}).update(data)
            behaviour |= {column: found.behaviour for column, found in data.items() if found.behaviour is not None
                          or column not in behaviour}
        columns = tuple(dict.fromkeys(columns))
        family = cls(name, stem, cards, columns, tuple(Row(label, seeds[label], rows[label]) for label in rows),
                     behaviour)
        averages = {row.label: average.mean for row in family.rows if (average := family.average(row))}
        return family._replace(rows=tuple(sorted(
            family.rows, key=lambda row: (-averages.get(row.label, -np.inf), row.label))))


def families(results: Mapping[str, CardResult]) -> list[Family]:
    """The tables that the cards name. Raises ValueError for cards that do not fit in one table."""
    stems = _stems(result.card.table for result in results.values())
    return [Family.of(name, stem, {file: r for file, r in results.items() if r.card.table == name})
            for name, stem in stems.items()]


def _stems(names: Iterable[str]) -> dict[str, str]:
    """What the figures of each table are called: its name in small letters and dashes, numbered if another has it."""
    stems: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
        taken = {file for stem in stems.values() for file in (stem, f"{stem}-curves")}  # a table has a second figure
        stems[name] = next(stem for stem in chain([plain], (f"{plain}-{n}" for n in count(2)))
                           if not taken & {stem, f"{stem}-curves"})
    return stems


def number(value: float | Sequence[float] | None) -> str:
    """A score, or an interval of scores, with as many digits as are meaningful."""
    if value is None:
        return "—"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(number, value))}]"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:z.2f}"


def plus_minus(value: Estimate | None) -> str:
    """An estimate as its mean and half the width of its interval."""
    if value is None:
        return number(None)
    return f"{number(value.mean)} ± {(value.high - value.low) / 2:.{1 if abs(value.mean) >= 9.995 else 2}f}"
