"""Figures that compare several runs or families of models. Every function takes arrays, writes one file and returns
its path.

`palette` is name -> colour, so that a family has the same colour in every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .style import (
    BLUE,
    GREY,
    INK,
    POSITIONS,
    Background,
    Plane,
    colours,
    draw_floor,
    head,
    log_ticks,
    mark,
    panels,
    save,
)

ACROSS = 6  # conditions in a row
SCORES_ACROSS = 4  # panels of scores in a row
TICKS = 1, 1.5, 2, 3, 5, 7  # of a logarithmic axis, in each power of ten


def plot_conditions(samples: Mapping[str, np.ndarray], data_CH2: np.ndarray, palette: Mapping[str, str], path: Path,
                    background: Background | None = None, *, goals: bool = True, plane: Plane = POSITIONS) -> Path:
    """Draws samples under the same conditions, with a row of panels for each model.

    `samples` are name -> (C, N, H, 2): N trajectories for each of C conditions. `data_CH2` are the windows that the
    conditions are taken from: their first timestep, and with `goals` their last one too.
    """
    from matplotlib.figure import Figure

    number, across = len(data_CH2), min(ACROSS, len(data_CH2))
    down = -(-number // across)
    figure = Figure(figsize=(1.75 * across + 0.4, 1.75 * down * len(samples) + 0.5), layout="compressed",
                    facecolor="white")
    axes: Any = figure.subplots(down * len(samples), across, squeeze=False)
    extent = data_CH2.reshape(-1, 2)
    for row, column in np.ndindex(axes.shape):
        ax, c = axes[row, column], row // len(samples) * across + column
        name, x_CNH2 = list(samples.items())[row % len(samples)]
        if c >= number:
            ax.axis("off")
            continue
        draw_floor(ax, background, extent, plane)
        plane.zoom(ax, extent, 0.12)  # to the data, rather than to all of the walls
        ax.plot(*data_CH2[c].T, color=INK, lw=1.0, ls=(0, (2, 2)), label="data")
        for n, x_H2 in enumerate(x_CNH2[c]):
            ax.plot(*x_H2.T, color=palette[name], lw=0.9, alpha=0.7, label="samples" if n == 0 else None)
        mark(ax, data_CH2[c, 0], data_CH2[c, -1] if goals else None)
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="" if column else name)
        if row % len(samples) == 0:
            ax.set_title(f"condition {c + 1}", fontsize=8, loc="left")
    head(figure, list(axes.flat), "The same conditions by every family")
    return save(figure, path)


def plot_frontier(points: Mapping[str, tuple[float, float, Sequence[float] | None, bool]], path: Path,
                  worth: str) -> Path:
    """Draws what `points` are worth over the CPU time of a decision; a line joins those that no other point beats.

    A point is name -> (milliseconds, worth, the interval of the worth or None, whether it is on the line). `worth`
    labels the axis.
    """
    figure, [ax] = panels(1, width=7.0, height=4.0)
    best = sorted((cost, value) for cost, value, _, beaten_by_none in points.values() if beaten_by_none)
    ax.plot(*np.array(best).T, "-", color=GREY, lw=1.2)
    for name, (cost, value, interval, beaten_by_none) in points.items():
        colour = BLUE if beaten_by_none else GREY
        if interval is not None:
            low, high = interval
            ax.errorbar(cost, value, [[value - low], [high - value]], color=colour, capsize=3, lw=1.0)
        ax.plot(cost, value, "o", color=colour, ms=6)
        ax.annotate(name, (cost, value), (6, 5), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    ax.margins(x=0.2, y=0.1)
    log_ticks(ax.xaxis, TICKS, 6)
    ax.set(xlabel="CPU time of a decision (ms, log scale)", ylabel=worth)
    ax.set_title("What a decision costs and what it is worth", loc="left")
    return save(figure, path)


def plot_seeds(values: Mapping[str, Sequence[float]], intervals: Mapping[str, Sequence[float]],
               lines: Mapping[str, float], palette: Mapping[str, str], path: Path, unit: str) -> Path:
    """Draws `values`, name -> the value of each seed, over the intervals [low, high] of their means.

    `lines` are name -> value to compare with, and `unit` labels the axis.
    """
    figure, [ax] = panels(1, width=6.4, height=1.2 + 0.5 * len(values))
    for row, (name, seeds) in enumerate(values.items()):
        colour = palette[name]
        ax.plot(intervals[name], [row, row], color=colour, lw=9, alpha=0.25, solid_capstyle="butt")
        ax.plot([np.mean(seeds)] * 2, [row - 0.25, row + 0.25], color=colour, lw=2.5)
        ax.plot(seeds, [row] * len(seeds), "o", color=colour, ms=6, mec="white")
    for style, (name, value) in zip(("-", (0, (3, 2))), lines.items(), strict=False):
        ax.axvline(value, color=GREY, ls=style, label=name)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(unit)
    head(figure, [ax], "Every seed, and the 95 % interval of the mean")
    return save(figure, path)


def plot_intervals(scores: Mapping[str, Mapping[str, tuple[float, float, float]]], lines: Mapping[str, float],
                   path: Path, unit: str, title: str, line: str, shown: tuple[float, float] | None = None) -> Path:
    """Draws a panel for each name of `scores`, which are name -> label of the row -> (low, mean, high).

    `lines` are name -> value to compare with in the panel of that name; the legend calls all of them `line`. `shown` is
    a range of scores that every panel shows at least.
    """
    from matplotlib.ticker import MaxNLocator

    rows = list(dict.fromkeys(row for panel in scores.values() for row in panel))
    columns, height = min(SCORES_ACROSS, len(scores)), 0.6 + 0.24 * len(rows)
    figure, axes = panels(len(scores), columns=columns, width=2.4, height=height)
    for ax, (name, panel) in zip(axes, scores.items(), strict=True):
        for row, (low, mean, high) in panel.items():
            ax.plot([low, high], [rows.index(row)] * 2, color=colours(1)[0], lw=5, alpha=0.3, solid_capstyle="butt")
            ax.plot(mean, rows.index(row), "o", color=colours(1)[0], ms=5, mec="white")
        if name in lines:
            ax.axvline(lines[name], color=GREY, ls=(0, (3, 2)), label=line)
        place = ax.get_subplotspec()
        ax.set_yticks(range(len(rows)), rows if place is None or place.is_first_col() else [""] * len(rows))
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
    """A score over the training steps (P,): its mean, and its least and greatest value over seeds."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def plot_learning_curves(curves: Mapping[str, Mapping[str, Curve]], path: Path, unit: str, title: str) -> Path:
    """Draws a panel for each name of `curves`, which are name -> label -> the curve of that label.

    `unit` labels the axis of the scores.
    """
    from matplotlib.ticker import MaxNLocator

    labels = list(dict.fromkeys(label for panel in curves.values() for label in panel))
    palette = dict(zip(labels, colours(len(labels)), strict=True))
    figure, axes = panels(len(curves), columns=min(3, len(curves)), width=3.2, height=2.6)
    for ax, (name, panel) in zip(axes, curves.items(), strict=True):
        for label, (step, mean, low, high) in panel.items():
            ax.fill_between(step, low, high, color=palette[label], alpha=0.15, lw=0)
            ax.plot(step, mean, "o-", color=palette[label], ms=3, lw=1.5, label=label)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlabel("training step", fontsize=8)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_ylabel(unit, fontsize=8)
    head(figure, axes, title)
    return save(figure, path)
