"""Figures that compare several runs or families of models. Every function takes arrays, writes one file and returns
its path."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .style import (
    BLUE,
    GREY,
    colours,
    head,
    log_ticks,
    panels,
    save,
)

SCORES_ACROSS = 4  # panels of scores in a row
LONGEST_LABEL = 32  # characters; of a longer one the end is shown


def plot_frontier(points: Mapping[str, tuple[float, tuple[float, float, float]]], best: Collection[str], path: Path,
                  worth: str) -> Path:
    """Draws what `points` are worth over the CPU time of a decision; a line joins the `best`, which no other beats.

    A point is name -> (milliseconds, (low, mean, high) of its worth). `worth` labels the axis.
    """
    figure, [ax] = panels(1, width=7.0, height=4.0)
    line = sorted((cost, mean) for name, (cost, (_, mean, _)) in points.items() if name in best)
    ax.plot(*np.array(line).T, "-", color=GREY, lw=1.2)
    for name, (cost, (low, mean, high)) in points.items():
        colour = BLUE if name in best else GREY
        ax.errorbar(cost, mean, [[mean - low], [high - mean]], fmt="o", color=colour, capsize=3, lw=1.0, ms=6)
        ax.annotate(name, (cost, mean), (6, 5), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    ax.margins(x=0.2, y=0.1)
    log_ticks(ax.xaxis)
    ax.set(xlabel="CPU time of a decision (ms, log scale)", ylabel=worth)
    ax.set_title("What a decision costs and what it is worth", loc="left")
    return save(figure, path)


def plot_intervals(scores: Mapping[str, Mapping[str, tuple[float, float, float]]], lines: Mapping[str, float],
                   path: Path, unit: str, title: str, line: str, shown: tuple[float, float] | None = None) -> Path:
    """Draws a panel for each name of `scores`, which are name -> label of the row -> (low, mean, high).

    `lines` are name -> value to compare with in the panel of that name; the legend calls all of them `line`. `shown` is
    a range of scores that every panel shows at least.
    """
    from matplotlib.ticker import MaxNLocator

    rows = list(dict.fromkeys(row for panel in scores.values() for row in panel))
    labels = [row if len(row) <= LONGEST_LABEL else f"…{row[1 - LONGEST_LABEL :]}" for row in rows]
    width = 2.4 if len(scores) > 1 else 6.4
    figure, axes = panels(len(scores), columns=SCORES_ACROSS, width=width, height=0.6 + 0.24 * len(rows))
    for ax, (name, panel) in zip(axes, scores.items(), strict=True):
        for row, (low, mean, high) in panel.items():
            if np.isfinite([low, high]).all():
                ax.plot([low, high], [rows.index(row)] * 2, color=colours(1)[0], lw=5, alpha=0.3, solid_capstyle="butt")
            ax.plot(mean, rows.index(row), "o", color=colours(1)[0], ms=5, mec="white")
        if name in lines:
            ax.axvline(lines[name], color=GREY, ls=(0, (3, 2)), label=line)
        place = ax.get_subplotspec()
        ax.set_yticks(range(len(rows)), labels if place is None or place.is_first_col() else [""] * len(rows))
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlabel(unit, fontsize=8)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if shown is not None:
            drawn = [*shown, *ax.dataLim.intervalx]
            margin = 0.03 * (max(drawn) - min(drawn))
            ax.set_xlim(min(drawn) - margin, max(drawn) + margin)
    head(figure, axes, title)
    return save(figure, path)


class Curve(NamedTuple):
    """A score over the training steps (P,), or over delays: its mean, and its least and greatest value over seeds, or
    the bounds of an interval."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], name: str) -> Curve:
        """One number of those rows that have it, without a range."""
        step, value = np.array([(row["step"], row.get(name)) for row in rows], float).T
        there = np.isfinite(value)
        return cls(step[there], *[value[there]] * 3)


def plot_learning_curves(curves: Mapping[str, Mapping[str, Curve]], path: Path, unit: str, title: str,
                         along: str = "training step", log: bool = False) -> Path:
    """Draws a panel for each name of `curves`, which are name -> label -> the curve of that label.

    `unit` labels the axis of the scores, and `along` the other one. A label has one colour in all panels. With `log`,
    the scores of a panel are on a logarithmic axis, unless all are 0 or some are negative.
    """
    from matplotlib.ticker import MaxNLocator

    labels = list(dict.fromkeys(label for panel in curves.values() for label in panel))
    palette = dict(zip(labels, colours(len(labels)), strict=True))
    figure, axes = panels(len(curves), columns=min(3, len(curves)), width=3.2, height=2.6)
    for ax, (name, panel) in zip(axes, curves.items(), strict=True):
        for label, (step, mean, low, high) in panel.items():
            ax.fill_between(step, low, high, color=palette[label], alpha=0.15, lw=0)
            ax.plot(step, mean, "o-", color=palette[label], ms=3, lw=1.5, label=label, markevery=1 + len(step) // 40)
        scores = np.concatenate([curve.mean for curve in panel.values()])
        if log and scores.any() and (scores >= 0).all():
            ax.set_yscale("log")
            log_ticks(ax.yaxis)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlabel(along, fontsize=8)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel(unit, fontsize=8)
    head(figure, axes, title)
    return save(figure, path)
