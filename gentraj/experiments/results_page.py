"""The page of all results: a table, a figure and the training times for each table that cards name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from ..files import write_file
from ..plots.comparison import plot_intervals, plot_learning_curves
from ..plots.page import markdown_table
from .results import COMPARED, CardResult, DataResult, verdict
from .results_extras import CURVES, Curves, published, robust
from .results_tables import Family, Row, families, number, plus_minus
from .statistics import is_paired

SCORES = {"score_d4rl": "D4RL-normalised score", "score_minari": "Minari-normalised score",
          "return_mean": "return of an episode", "success_rate": "success rate"}
SHOWN = {"score_d4rl": (0.0, 100.0), "score_minari": (0.0, 100.0), "success_rate": (0.0, 1.0)}  # by every figure
DATA, AVERAGE = "the data", "average"

HEAD = """# Results

This page was written by

    gentraj reproduce CARD.json... --data DIR --results FOLDER --table {page}

The command trains and evaluates what the cards describe, with the data files in DIR. If it was interrupted, the same
command continues. A card is a small file that holds all settings of one or more runs, and a row of a table comes from
one or more cards. To change this page, edit the cards and run them. Without cards, the command writes the page from the
results in FOLDER."""
PROTOCOL = """Each entry is the {score}{protocol} of the *last* checkpoint. It is the mean over the training seeds
({seeds}) with {episodes} episodes each, which are the same for all methods. The number after ± is half the width of the
95 % bootstrap interval of the mean, for which seeds and episodes are resampled. {average}{behaviour}"""
BEHAVIOUR = f""" The row
"{DATA}" is the mean over the dataset's episodes."""
AVERAGED = """The column "average" is the mean over
the datasets, and rows are sorted by it."""
NOT_AVERAGED = """There is no average over the
datasets, as the returns of different tasks have different scales."""
ALIKE = """Where all episodes have the same score, the bootstrap interval has no width, but the rate is not
certain. If none of {episodes} independent episodes succeeds, the exact 95 % interval of the rate is 0 to {high:.3f},
and if each does, it is {low:.3f} to 1."""
TOOK = """Minutes are for one thread, while other runs were using the same machine. Settings are those of the card; all
others are those of the preset."""


def write_page(results: Mapping[str, CardResult], path: Path) -> Path:
    """Writes the page, with figures in the folder `figures` beside it, and returns its path."""
    for family in families(results):
        _draw(family, path.parent / _figure(family, path))
        if (found := Curves.of(family)).curves:
            plot_learning_curves(found.curves, found.lines, path.parent / _figure(family, path, "-curves"),
                                 SCORES[family.card.score], f"{family.name}: scores while training")
    return write_file(path, page(results, path).encode())


def page(results: Mapping[str, CardResult], path: Path) -> str:
    """The page as Markdown, which depends on the results only. `path` is where it will be written."""
    parts = [HEAD.format(page=shlex.quote(path.as_posix()))]
    for family in families(results):
        picture = _picture(family.name, _figure(family, path))
        parts += [f"## {family.name}", _protocol(family), _scores(family), *_other_data(family), *_alike(family),
                  *_lead(family), picture, *robust(family), *published(family), *_curves(family, path),
                  "### What the runs took", TOOK, _took(family)]
    return "\n\n".join([*parts, _versions(results)]) + "\n"


def _scores(family: Family) -> str:
    behaviour = [family.behaviour.get(column) for column in family.columns]
    defined = [value for value in behaviour if value is not None]
    mean = float(np.mean(defined)) if len(defined) == len(behaviour) else None
    rows: list[Sequence[Any]] = [[DATA, *map(number, behaviour), number(mean)]] if defined else []
    for row in family.rows:
        cells = [_cell(row, row.results.get(column)) for column in family.columns]
        rows.append([row.label, *cells, plus_minus(family.average(row))])
    columns = ["", *family.columns, AVERAGE]
    shown = len(columns) if family.is_averaged else -1
    return markdown_table(columns[:shown], [row[:shown] for row in rows])


def _other_data(family: Family) -> Iterator[str]:
    """Yields, for each dataset, which rows were trained on other data of the same name than most rows."""
    for column in family.columns:
        rows: dict[str, list[str]] = {}
        for row in family.rows:
            if found := row.results.get(column):
                rows.setdefault(found.sha256, []).append(row.label)
        if len(rows) > 1:
            _, *others = sorted(rows.values(), key=lambda labels: -len(labels))
            labels = _listed([label for some in others for label in some])
            yield f"**The data of {column} differ**: {labels} learned from other data of that name than the other rows."


def _listed(words: Sequence[str]) -> str:
    """The words as a sentence has them: A, B and C."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _alike(family: Family) -> Iterator[str]:
    """Yields what an interval without width means, if a success rate has one."""
    alike = [found for row in family.rows for found in row.results.values()
             if len({score for seed in found.seeds for score in seed.scores}) == 1]
    if alike and family.card.score == "success_rate":
        episodes = min(len(seed.scores) for found in alike for seed in found.seeds)
        low = 0.025 ** (1 / episodes)
        yield ALIKE.format(episodes=episodes, high=1 - low, low=low)


def _lead(family: Family) -> Iterator[str]:
    """Yields how far the best average is above the second, if there are two."""
    if len(family.whole_rows) < 2:
        return
    (best, second, *_), columns = family.whole_rows, family.columns
    low, mean, high = best.lead(second, columns)
    chance = "" if low > 0 else ", so the lead may be due to chance"
    pairs = [[row.results[column] for row in (best, second)] for column in columns]
    paired = [is_paired(*(result.by_seed for result in pair)) for pair in pairs]
    drawn = "paired by seed and episode" if all(paired) else "with both resampled as above"
    single = any(len(result.seeds) == 1 for pair in pairs for result in pair)
    yield (f"On average, **{best.label}** scores {number(mean)} more than **{second.label}**. The 95 % interval of "
           f"this difference, {drawn}, is {number(low)} to {number(high)}{chance}."
           + (" With one training per method, the interval does not include the variation between trainings."
              if single else ""))


def _cell(row: Row, result: DataResult | None) -> str:
    if result is None:
        return number(None)
    done, expected = len(result.seeds), len(row.seeds)
    return plus_minus(result.estimate) + (f" ({done} of {expected} seeds)" if done < expected else "")


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
    protocol = f" (protocol {card.protocol})" if card.protocol != "random-goal" else ""
    is_shown = any(value is not None for value in family.behaviour.values())
    return PROTOCOL.format(score=SCORES[card.score], protocol=protocol, episodes=card.episodes_scored,
                           seeds=_seeds(family.rows), average=AVERAGED if family.is_averaged else NOT_AVERAGED,
                           behaviour=BEHAVIOUR if is_shown else "")


def _seeds(rows: Iterable[Row]) -> str:
    """The seeds of most rows, followed by the rows that have others."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(", ".join(map(str, row.seeds)), []).append(row.label)
    common, *others = sorted(labels, key=lambda seeds: -len(labels[seeds]))
    return common + "".join(f"; for {_listed(labels[seeds])}: {seeds}" for seeds in others)


def _versions(results: Mapping[str, CardResult]) -> str:
    versions: dict[str, dict[str, None]] = {}
    for result in results.values():
        for seed in (seed for data in result.data.values() for seed in data.seeds):
            for name, one in seed.versions.items():
                versions.setdefault(name, {})[one] = None
    return f"Versions: {', '.join(f'{name} ' + ' and '.join(several) for name, several in versions.items())}."


def _figure(family: Family, path: Path, which: str = "") -> Path:
    """The path of a figure relative to the page."""
    return Path("figures") / f"{path.stem}-{family.stem}{which}.png"


def _picture(name: str, path: Path) -> str:
    """A picture in Markdown, whose links have no spaces."""
    return f"![{name}]({quote(path.as_posix())})"


def _curves(family: Family, path: Path) -> Iterator[str]:
    """Yields the figure of the learning curves, if there are any."""
    if Curves.of(family).curves:
        yield "### While training"
        yield CURVES.format(episodes=family.card.episodes)
        yield _picture(f"{family.name}, while training", _figure(family, path, "-curves"))


def _draw(family: Family, path: Path) -> None:
    panels = {column: {row.label: found.estimate for row in family.rows if (found := row.results.get(column))}
              for column in family.columns}
    panels[AVERAGE] = {row.label: average for row in family.rows if (average := family.average(row))}
    lines = {name: value for name, value in family.behaviour.items() if value is not None}
    if set(lines) == set(family.columns):
        lines[AVERAGE] = float(np.mean(list(lines.values())))
    plot_intervals({name: rows for name, rows in panels.items() if rows}, lines, path, SCORES[family.card.score],
                   f"{family.name}: mean and 95 % interval", DATA, SHOWN.get(family.card.score))
