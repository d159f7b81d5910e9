"""Sections of the page of results beside its tables of means: robust summaries, published scores, learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..plots.comparison import Curve
from ..plots.page import markdown_table
from .results import DataResult
from .results_tables import Family, number, plus_minus
from .statistics import Estimate

ROBUST = """### Over runs and datasets

{which}IQM is the interquartile mean over the runs on all datasets, which ignores the best and the worst quarter of the
runs. The last two columns compare each row with the next one. "Above the next row" is the difference of the two
averages, paired by seed and episode if both rows have the same seeds and episodes. "Probability of improvement" is the
probability that a run of this row scores higher than a run of the next row on the same dataset. Brackets contain 95 %
intervals, for which the runs on each dataset are resampled (Agarwal et al. 2021).{single}"""
SINGLE = """ A
single run cannot be resampled. Where a row has one on a dataset, its IQM has no brackets, it has no probability of
improvement, and the interval of the difference is over its episodes alone."""
PUBLISHED = """### Published scores

Published scores are from the papers, on their data. Our datasets have the same names but are different data, so compare
the order of the methods and not the numbers."""
CURVES = """The curves show scores during training, with {episodes} episodes per evaluation. A line is the mean over the
training seeds, the shaded area their range, and a dotted line a published score."""


def robust(family: Family) -> Iterator[str]:
    """Yields the text and the table of robust summaries, if two rows have results on every dataset."""
    if len(rows := family.whole_rows) < 2:
        return
    last = [row.last_evaluations(family.columns) for row in rows]
    curves = any(value is not None for value in last)
    cells = []
    for i, row in enumerate(rows):
        below = rows[i + 1] if i + 1 < len(rows) else None
        average = row.average(family.columns)
        compared = None if row.is_single or (below and below.is_single) else below
        cells.append((row.label, number(average and average.mean), *([number(last[i])] if curves else []),
                      bracketed(row.interquartile_mean(family.columns), row.is_single),
                      bracketed(below and row.lead(below, family.columns)),
                      bracketed(compared and row.improvement(compared, family.columns))))
    which = "" if len(rows) == len(family.rows) else "Rows that lack a dataset are left out. "
    columns = ("", "average", *(["mean of the last three evaluations"] if curves else []), "IQM", "above the next row",
               "probability of improvement")
    yield ROBUST.format(which=which, single=SINGLE if any(row.is_single for row in rows) else "")
    yield markdown_table(columns, cells)


def bracketed(value: Estimate | None, is_single: bool = False) -> str:
    """An estimate as "mean [low, high]", or without its interval if it is that of a single run."""
    shown = number(value and value.mean)
    return shown if value is None or is_single else f"{shown} {number(value.interval)}"


def published(family: Family) -> Iterator[str]:
    """Yields the text and the table of published scores, if the cards name any."""
    rows = []
    for result in family.cards.values():
        for data in result.card.data:
            if data.published is not None:
                ours = result.data.get(data.name)
                rows.append((result.card.label, data.name, plus_minus(ours and ours.estimate), _updates(ours),
                             number(data.published.score), f"{data.published.updates:,}", data.published.source))
    if rows:
        yield PUBLISHED
        yield markdown_table(("", "dataset", "ours", "updates", "published", "updates", "source"), rows)


def _updates(result: DataResult | None) -> str:
    """The updates of our trainings; after several numbers, of each seed's."""
    steps = dict.fromkeys(seed.step for seed in result.seeds) if result else ()
    return ", ".join(f"{step:,}" for step in steps) or number(None)


def curve(result: DataResult) -> Curve | None:
    """The mean and the range over the seeds at the steps that all of them were evaluated at; None without any."""
    seeds = [{point.step: point.mean for point in seed.curve} for seed in result.seeds]
    if not seeds or not (steps := sorted(set.intersection(*map(set, seeds)))):
        return None
    score_SP = np.array([[points[step] for step in steps] for points in seeds])
    return Curve(np.array(steps), score_SP.mean(0), score_SP.min(0), score_SP.max(0))


class Curves(NamedTuple):
    """The learning curves of a table, by dataset and by label, and the published scores beside them."""

    curves: dict[str, dict[str, Curve]]
    lines: dict[str, dict[str, float]]

    @classmethod
    def of(cls, family: Family) -> Curves:
        curves = {column: {row.label: points for row in family.rows if (found := row.results.get(column))
                           and (points := curve(found))} for column in family.columns}
        lines: dict[str, dict[str, float]] = {}
        for result in family.cards.values():
            for data in result.card.data:
                if data.published is not None and result.card.label in curves[data.name]:
                    lines.setdefault(data.name, {})[result.card.label] = data.published.score
        return cls({column: rows for column, rows in curves.items() if rows}, lines)
