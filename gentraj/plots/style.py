"""What all figures share: colours, panels, floors with walls, curves. matplotlib is imported when a figure is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..files import new_file

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.figure import Figure

Background = Callable[["Axes"], None]  # draws the walls of an environment

# The palette of Okabe and Ito, which colour-blind readers can tell apart.
BLUE = "#0072B2"
VERMILION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
MORE = "#332288", "#882255", "#999933", "#661100", "#117733", "#DDAA99"  # where these six do not suffice
INK, GREY = "#333333", "#999999"
DPI = 130
COLUMNS = 4  # panels in a row


def panels(count: int, columns: int = COLUMNS, width: float = 3.1, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    """Makes a figure of `count` panels, at most `columns` in a row, each of `width` by `height` inches."""
    from matplotlib.figure import Figure

    if count < 1:
        raise ValueError("nothing to draw; give at least one trajectory")
    rows = math.ceil(count / columns)
    columns = math.ceil(count / rows)  # rows of equal length where possible
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="compressed", facecolor="white")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e6e6e6", lw=0.6)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=8, color=GREY)
    return figure, axes


class Floor(NamedTuple):
    """The plane in which figures draw trajectories: two entries of an observation, on the same scale."""

    background: Background | None = None
    """What draws the walls, and fixes the extent."""
    dims: tuple[int, int] = (0, 1)
    labels: tuple[str, str] = ("x (m)", "y (m)")

    def places(self, x_NHD: np.ndarray) -> np.ndarray:
        """(..., H, 2) the places of trajectories (..., H, D)."""
        return x_NHD[..., list(self.dims)]

    def draw(self, ax: Axes, points: np.ndarray) -> None:
        """Draws the walls and the ticks, and fixes the extent: that of the walls, or of the points where there are
        none."""
        from matplotlib.ticker import MaxNLocator

        if self.background is None:
            zoom(ax, points, 0.06)
        else:
            ax.grid(visible=False)
            self.background(ax)
        ax.set_aspect("equal")
        ax.autoscale(False)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        ax.set(xlabel=self.labels[0], ylabel=self.labels[1])
        ax.label_outer()


FLOOR = Floor()


def zoom(ax: Axes, points: np.ndarray, share: float) -> None:
    """Sets the extent of `ax` to that of the points, with a margin of `share` of it. The shorter side is at least 0.7
    times as long as the other, so that titles and ticks have room."""
    low, high = points.min(0), points.max(0)
    spread = (high - low).max()
    middle, half = (low + high) / 2, np.maximum(high - low, 0.7 * spread) / 2 + share * max(spread, 1e-6)
    ax.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))


def mark(ax: Axes, start: np.ndarray, goal: np.ndarray | None) -> None:
    """Draws a start, and a goal where there is one, both (2,)."""
    ax.plot(*start, "o", color=GREEN, ms=8, mec="white", mew=1.2, ls="", label="start", zorder=4)
    if goal is not None:
        ax.plot(*goal, "*", color=VERMILION, ms=14, mec="white", mew=1.0, ls="", label="goal", zorder=4)


def head(figure: Figure, axes: Sequence[Axes], title: str) -> None:
    """Adds one title, and one legend of all that any of the panels shows."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    shown: dict[str, Artist] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if shown:
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def colours(count: int) -> list[str]:
    """Returns colours of which none is there twice."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, *MORE]
    if count > len(palette):
        palette = [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0, 1, count))]
    return palette[:count]


def trust_scale(limit: float) -> tuple[LogNorm, ListedColormap]:
    """A logarithmic colour scale of trust ratios from 1 / limit to limit: blue up to the threshold of trust, 1, and
    orange beyond it. Returns matplotlib's norm and colour map."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    shades = np.linspace(0, 1, 128)
    both = np.vstack([colormaps["Blues"](0.95 - 0.5 * shades), colormaps["Oranges"](0.4 + 0.5 * shades)])
    return LogNorm(1 / limit, limit), ListedColormap(both)


def log_ticks(axis: Axis) -> None:
    """Gives a logarithmic axis, on which all is drawn, few ticks without exponents."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_view_interval()
    locator = LogLocator(numticks=5)
    if high < 10 * low:
        locator = MaxNLocator(4)
    elif high < 1000 * low:
        locator = LogLocator(subs=(1, 2, 5), numticks=5)
    axis.set_major_locator(locator)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure in the format that the name of the file ends in, and returns the path."""
    with new_file(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    return path
