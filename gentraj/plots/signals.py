"""Figures over time: entries of observations and actions, in a column of panels that share the steps.

In shapes, D is the entries of a timestep: those of an observation, and behind them those of an action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .style import GREY, head, panels, save

MOST_PANELS = 12
MOST_NAMED = 4  # constant entries whose values a figure says
NEGLIGIBLE = 1e-5  # a difference beside the size of the numbers


class Signals(NamedTuple):
    """N sequences that are drawn alike. Where one is NaN, nothing is drawn."""

    label: str
    step_T: np.ndarray
    """The environment steps of the timesteps."""
    x_NTD: np.ndarray
    colour: str
    width: float = 1.0
    alpha: float = 1.0


def plot_signals(signals: Sequence[Signals], names: Sequence[str], path: Path, title: str,
                 bounds_2D: np.ndarray | None = None) -> Path:
    """Draws the entries that vary in the first of `signals` over the steps; those that are constant there are named
    below. `names` are those of all D entries. Thinner lines lie over thicker ones, so that none hides another.

    Of more than `MOST_PANELS` entries, so many are drawn, evenly spaced. `bounds_2D` are the least and the greatest
    value that each entry may have; those that are not finite are not drawn.
    """
    from matplotlib.ticker import MaxNLocator

    first_XD = signals[0].x_NTD.reshape(-1, len(names))
    low_D = np.fmin.reduce(first_XD)
    varying, entries = choose_entries(low_D, np.fmax.reduce(first_XD), MOST_PANELS)
    figure, axes = panels(len(entries), columns=1, width=7.0, height=0.9)
    first = min(each.step_T[0] for each in signals)
    last = max(each.step_T[-1] for each in signals)
    for d, ax in zip(map(int, entries), axes, strict=True):
        for label, step_T, x_NTD, colour, width, alpha in signals:
            lines = ax.plot(step_T, x_NTD[..., d].T, color=colour, lw=width, alpha=alpha, zorder=3 - width / 10)
            lines[0].set_label(label)  # a legend names the first
        if bounds_2D is not None:
            for bound in bounds_2D[:, d][np.isfinite(bounds_2D[:, d])]:
                ax.axhline(bound, color=GREY, lw=1.0, ls=(0, (3, 2)), label="limits")
        ax.set_xlim(first, max(last, first + 1))
        ax.set_ylabel(names[d], rotation=0, ha="right", va="center", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.label_outer()
    axes[-1].set_xlabel("\n".join(["environment steps", *left_out(names, varying, entries, low_D)]), fontsize=9)
    head(figure, axes, title)
    return save(figure, path)


def choose_entries(low_D: np.ndarray, high_D: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The entries that vary between these values, or all if none does, and at most so many of them, evenly spaced."""
    varies_D = high_D - low_D > NEGLIGIBLE * np.maximum(np.abs(low_D), np.abs(high_D))
    if not varies_D.any():
        varies_D[:] = True
    varying = np.flatnonzero(varies_D)
    return varying, varying[np.unique(np.linspace(0, len(varying) - 1, min(most, len(varying))).round().astype(int))]


def left_out(names: Sequence[str], varying: np.ndarray, entries: np.ndarray, low_D: np.ndarray) -> Iterator[str]:
    """What is said of the entries without a panel."""
    if len(entries) < len(varying):
        yield f"{len(entries)} of the {len(varying)} entries that vary"
    constant = [d for d in range(len(names)) if d not in varying]
    if len(constant) > MOST_NAMED:
        yield f"{len(constant)} entries are constant"
    elif constant:
        yield "constant: " + ", ".join(f"{names[d]} {low_D[d]:.4g}" for d in constant)


def executed(obs_SO: np.ndarray, act_TA: np.ndarray) -> np.ndarray:
    """(1, S, D) what was observed and done in T = S - 1 steps; no action follows the last observation."""
    act_SA = np.pad(act_TA.astype(float), ((0, 1), (0, 0)), constant_values=np.nan)
    return np.concatenate([obs_SO, act_SA], axis=1)[None]


def windows_of_data(step_T: np.ndarray, x_NTD: np.ndarray) -> Signals:
    """Windows of the data, as all figures draw them."""
    return Signals("windows of data", step_T, x_NTD, GREY, 2.0, 0.5)
