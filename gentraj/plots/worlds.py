"""Figures of how good a world model is. As in `figures`: arrays in, one file out, its path returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREY, INK, ORANGE, colours, head, panels, readable_ticks, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_errors(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> Path:
    """`groups` are what is predicted -> guess -> (T,) errors; a panel each, on a log scale."""
    figure, axes = panels(len(groups), width=3.6)
    for ax, (name, guesses) in zip(axes, groups.items(), strict=True):
        for colour, (guess, error_T) in zip([BLUE, ORANGE, GREY] if len(guesses) == 3 else [BLUE, GREY],
                                            guesses.items(), strict=True):
            ax.plot(np.arange(1, len(error_T) + 1), error_T, color=colour, lw=1.8, label=guess)
        ax.set_yscale("log")
        ax.tick_params(which="both", labelsize=8)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set(xlabel="steps", ylabel="error (environment units)")
        ax.legend(frameon=False, fontsize=8)
    _title(figure, "Open loop: root mean square error against the horizon")
    return save(figure, path)


def plot_calibration(expected_N: Sequence[float], found_N: Sequence[float], path: Path) -> Path:
    """The error that was expected of a step beside the one that was found, of bins of equally many steps."""
    figure, [ax] = panels(1, width=4.4, height=4.0)
    both = np.array([*expected_N, *found_N])
    span = [both[both > 0].min() * 0.8, both.max() * 1.25] if (both > 0).any() else [0.1, 1.0]
    ax.plot(span, span, color=GREY, ls=(0, (3, 2)), label="as expected")
    ax.plot(expected_N, found_N, "o-", color=BLUE, label="found")
    ax.set(xscale="log", yscale="log", xlim=span, ylim=span, xlabel="expected error (deviations of a step's change)",
           ylabel="error found")
    readable_ticks(ax, span)
    ax.legend(frameon=False)
    _title(figure, "Is the uncertainty calibrated? One step, held-out data")
    return save(figure, path)


def plot_imagined(true_TO: np.ndarray, mean_TO: np.ndarray, draws_NTO: np.ndarray, path: Path,
                  names: Sequence[str]) -> Path:
    """Entries of an observation over time: what happened, what is expected, and what was drawn."""
    figure, axes = panels(true_TO.shape[1], columns=3, width=3.2, height=2.2)
    step_T = np.arange(len(true_TO))
    for o, (ax, name) in enumerate(zip(axes, names, strict=True)):
        for n, draw_TO in enumerate(draws_NTO):
            ax.plot(step_T, draw_TO[:, o], color=BLUE, lw=0.8, alpha=0.5, label="drawn" if n == 0 else None)
        ax.plot(step_T, mean_TO[:, o], color=ORANGE, lw=1.8, label="expected")
        ax.plot(step_T, true_TO[:, o], color=INK, lw=1.5, ls=(0, (3, 2)), label="true")
        ax.set_title(name, loc="left", fontsize=9)
    head(figure, axes, "True and imagined, by the same actions")
    return save(figure, path)


def plot_returns(returns: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path, title: str) -> Path:
    """`returns` are a policy's name -> what it earned in the model and in the environment, an entry an episode."""
    figure, [ax] = panels(1, width=5.4, height=4.6)
    for colour, (name, pair) in zip(colours(len(returns)), returns.items(), strict=True):
        imagined_N, true_N = pair
        ax.errorbar(true_N.mean(), imagined_N.mean(), xerr=_error(true_N), yerr=_error(imagined_N), fmt="o",
                    color=colour, capsize=3, label=name)
    low, high = (f([f(np.append(*pair)) for pair in returns.values()]) for f in (min, max))
    ax.plot([low, high], [low, high], color=GREY, ls=(0, (3, 2)))
    ax.set(xlabel="return in the environment", ylabel="return in the world model")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _title(figure, title)
    return save(figure, path)


def _title(figure: Figure, title: str) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)


def _error(x_N: np.ndarray) -> float:
    """1.96 standard errors of the mean."""
    return 1.96 * float(np.std(x_N)) / max(len(x_N), 1) ** 0.5
