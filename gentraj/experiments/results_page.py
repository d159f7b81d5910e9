"""The page of all results: a table, a figure and the training times for each table that cards name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import write_file
from ..plots.comparison import plot_intervals
from ..plots.page import markdown_table
from .cards import Card
from .results import COMPARED, CardResult, DataResult, verdict
from .statistics import estimate, seeds_means

SCORES = {"score_d4rl": "D4RL-normalised score", "score_minari": "Minari-normalised score",
          "return_mean": "return of an episode", "success_rate": "share of episodes that succeed"}
DATA, AVERAGE = "the data", "average"

HEAD = """# Results

Written by

    gentraj reproduce CARD.json... --data DIR --results FOLDER --table {page}

which trains, evaluates and writes this page, with the data files in DIR. The same command continues where it was
stopped. A row comes from one or more cards, small files with all of its settings: to change this page, edit cards and
run them. Without cards the command writes the page from the results in FOLDER."""
PROTOCOL = """The {score}{protocol}: *last* checkpoints of the training seeds {seeds}, with {episodes} episodes each,
the same for all. After ± is half of the 95 % bootstrap interval of the mean, which resamples seeds and each seed's
episodes; for the average, those of every dataset. The best average comes first. "{data}" is the mean of the data's own
episodes."""
TOOK = "Minutes are those of one thread, while other runs were in progress. Settings are those that the card gives."


class Row(NamedTuple):
    """A row of a table: the results of a label by the names of their datasets."""

    label: str
    seeds: tuple[int, ...]
    """The seeds that the cards of the row ask for."""
    results: Mapping[str, DataResult]

    def average(self, columns: Sequence[str]) -> tuple[float, float, float] | None:
        """(low, mean, high) over all columns; None if a column is missing."""
        if not set(columns) <= self.results.keys():
            return None
        return estimate(float(np.mean([self.results[c].mean for c in columns])), self.draws(columns, 0))

    def draws(self, columns: Sequence[str], first: int) -> np.ndarray:
        """Bootstrap averages over the columns by `seeds_means`, which gets the seeds `first`, `first + 1` and so on."""
        scores = [[seed.scores for seed in self.results[column].seeds] for column in columns]
        return np.mean([seeds_means(one, first + i) for i, one in enumerate(scores)], 0)


class Family(NamedTuple):
    """The cards of one table; cards with the same label on different datasets share a row."""

    name: str
    cards: Mapping[str, CardResult]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    behaviour: Mapping[str, float | None]

    @property
    def card(self) -> Card:
        return next(iter(self.cards.values())).card

    @classmethod
    def of(cls, name: str, cards: Mapping[str, CardResult]) -> Family:
        """Sorts the cards into rows and columns. Raises ValueError for cards that do not fit in one table."""
        first = next(iter(cards.values())).card
        columns, behaviour, rows, taken, seeds = [], {}, {}, set(), {}
        for file, result in sorted(cards.items(), key=lambda pair: -len(pair[1].card.data)):  # most columns first
            card, data = result.card, result.data
            for key in ("score", "protocol", "episodes"):
                if getattr(card, key) != getattr(first, key):
                    raise ValueError(f"the card {file} has {key} {getattr(card, key)}, and another of the table "
                                     f"'{name}' {getattr(first, key)}; give it a table of its own")
            if (others := seeds.setdefault(card.label, card.seeds)) != card.seeds:
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have seeds {others} "
                                 f"and {card.seeds}; give them the same")
            cells = [(card.label, one.name) for one in card.data]
            if both := [column for label, column in cells if (label, column) in taken]:
                raise ValueError(f"two cards of the table '{name}' are called '{card.label}' and have {', '.join(both)}"
                                 "; give each its own label")
            taken |= set(cells)
            columns += [column for _, column in cells]
            rows.setdefault(card.label, {}).update(data)
            behaviour |= {column: found.behaviour for column, found in data.items()}
        columns = tuple(dict.fromkeys(columns))
        sorted_rows = [Row(label, seeds[label], results) for label, results in rows.items()]
        averages = {row.label: average[1] for row in sorted_rows if (average := row.average(columns))}
        sorted_rows.sort(key=lambda row: (-averages.get(row.label, -np.inf), row.label))
        return cls(name, cards, columns, tuple(sorted_rows), behaviour)


def write_page(results: Mapping[str, CardResult], path: Path) -> Path:
    """Writes the page, with figures in the folder `figures` beside it, and returns its path."""
    for family in families(results):
        _draw(family, path.parent / _figure(family, path))
    return write_file(path, page(results, path).encode())


def page(results: Mapping[str, CardResult], path: Path) -> str:
    """The page as Markdown, which depends on the results only. `path` is where it will be written."""
    parts = [HEAD.format(page=path.as_posix())]
    for family in families(results):
        picture = f"![{family.name}]({_figure(family, path).as_posix()})"
        parts += [f"## {family.name}", _protocol(family), _scores(family), *_lead(family), picture,
                  "### What the runs took", TOOK, _took(family)]
    return "\n\n".join([*parts, _versions(results)]) + "\n"


def families(results: Mapping[str, CardResult]) -> list[Family]:
    """The tables that the cards name. Raises ValueError for cards that do not fit in one table."""
    names = dict.fromkeys(result.card.table for result in results.values())
    return [Family.of(name, {file: r for file, r in results.items() if r.card.table == name}) for name in names]


def number(value: float | Sequence[float] | None) -> str:
    """A score, or an interval of scores, with as many digits as are meaningful."""
    if value is None:
        return "—"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(number, value))}]"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:z.2f}"


def _scores(family: Family) -> str:
    behaviour = [family.behaviour.get(column) for column in family.columns]
    defined = [value for value in behaviour if value is not None]
    mean = float(np.mean(defined)) if len(defined) == len(behaviour) else None
    rows: list[Sequence[Any]] = [[DATA, *map(number, behaviour), number(mean)]] if defined else []
    for row in family.rows:
        cells = [_cell(row, row.results.get(column)) for column in family.columns]
        average = row.average(family.columns)
        rows.append([row.label, *cells, _plus_minus(*average) if average else number(None)])
    return markdown_table(["", *family.columns, AVERAGE], rows)


def _lead(family: Family) -> Iterator[str]:
    """Yields how far the best average is above the second, if there are two."""
    averages = [(row, average[1]) for row in family.rows if (average := row.average(family.columns))]
    if len(averages) < 2:
        return
    (best, most), (second, less), *_ = averages
    columns = family.columns
    low, _, high = estimate(most - less, best.draws(columns, 0) - second.draws(columns, len(columns)))
    chance = "" if low > 0 else ": the lead may be chance"
    single = any(len(row.results[column].seeds) == 1 for row in (best, second) for column in columns)
    yield (f"On average {best.label} is {number(most - less)} above {second.label}; the 95 % interval of this "
           f"difference, both drawn as above, is {number(low)} to {number(high)}{chance}."
           + (" For scores of one training, the interval leaves out how trainings differ." if single else ""))


def _cell(row: Row, result: DataResult | None) -> str:
    if result is None:
        return number(None)
    (low, high), done, expected = result.interval, len(result.seeds), len(row.seeds)
    return _plus_minus(low, result.mean, high) + (f" ({done} of {expected} seeds)" if done < expected else "")


def _plus_minus(low: float, mean: float, high: float) -> str:
    return f"{number(mean)} ± {(high - low) / 2:.{1 if abs(mean) >= 10 else 2}f}"


def _took(family: Family) -> str:
    rows = []
    for file, result in family.cards.items():
        card, data = result.card, result.data
        seeds = [seed for found in data.values() for seed in found.seeds]
        steps = ", ".join(dict.fromkeys(f"{seed.step}" for seed in seeds))
        minutes = f"{np.mean([seed.train_seconds for seed in seeds]) / 60:.1f}" if seeds else None
        settings = ", ".join(f"{key} {value}" for key, value in card.settings.items())
        verdicts = [verdict(card, one, data.get(one.name)) for one in card.data]
        compared = [one for one in verdicts if one in COMPARED]
        inside = f"{compared.count('inside')} of {len(compared)}" if compared else None
        rows.append((card.label, file, steps or None, minutes, settings or None, inside))
    return markdown_table(("", "card", "steps", "minutes a run", "settings", "as expected"), rows)


def _protocol(family: Family) -> str:
    card = family.card
    protocol = f", {card.protocol} protocol" if card.protocol != "random-goal" else ""
    return PROTOCOL.format(score=SCORES[card.score], protocol=protocol, episodes=card.episodes, data=DATA,
                           seeds=_seeds(family.rows))


def _seeds(rows: Iterable[Row]) -> str:
    """The seeds of most rows, followed by the rows that have others."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(", ".join(map(str, row.seeds)), []).append(row.label)
    common, *others = sorted(labels, key=lambda seeds: -len(labels[seeds]))
    return common + "".join(f" (of {' and '.join(labels[seeds])}: {seeds})" for seeds in others)


def _versions(results: Mapping[str, CardResult]) -> str:
    versions: dict[str, dict[str, None]] = {}
    for result in results.values():
        for seed in (seed for data in result.data.values() for seed in data.seeds):
            for name, one in seed.versions.items():
                versions.setdefault(name, {})[one] = None
    return f"Versions: {', '.join(f'{name} ' + ' and '.join(several) for name, several in versions.items())}."


def _figure(family: Family, path: Path) -> Path:
    """The path of the figure relative to the page."""
    return Path("figures") / f"{path.stem}-{re.sub(r'[^a-z0-9]+', '-', family.name.lower())}.png"


def _draw(family: Family, path: Path) -> None:
    panels: dict[str, dict[str, tuple[float, float, float]]] = {}
    for column in family.columns:
        panels[column] = {row.label: (r.interval[0], r.mean, r.interval[1]) for row in family.rows
                          if (r := row.results.get(column))}
    panels[AVERAGE] = {row.label: average for row in family.rows if (average := row.average(family.columns))}
    lines = {name: value for name, value in family.behaviour.items() if value is not None}
    if set(lines) == set(family.columns):
        lines[AVERAGE] = float(np.mean(list(lines.values())))
    plot_intervals({name: rows for name, rows in panels.items() if rows}, lines, path, SCORES[family.card.score],
                   f"{family.name}: mean and 95 % interval", DATA)
