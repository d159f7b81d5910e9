"""Figures of one run. Every function takes arrays, writes one file and returns its path.

Positions are (..., 2) in environment units, on a `floor` that may have walls.
matplotlib is imported when a figure is drawn. It is used without pyplot, so that no global state changes and no display
is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import new_file
from .style import (
    BLUE,
    FLOOR,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    Floor,
    head,
    log_ticks,
    mark,
    panels,
    save,
    trust_scale,
    zoom,
)

NOWHERE = np.empty((0, 2))
SMALL = 0.25  # of the width of the walls


def plot_returns(returns: Sequence[float], yardsticks: Mapping[str, float], path: Path) -> Path:
    """Draws a histogram of the returns of episodes; `yardsticks`, name -> mean return of other agents, are lines."""
    from matplotlib.ticker import MaxNLocator

    figure, [ax] = panels(1, width=7.0, height=3.2)
    values = np.asarray(returns, float)
    margin = 1e-3 * max(1.0, np.abs(values).max())  # for returns that are equal, or differ by rounding only
    ax.hist(values, bins=min(30, max(5, len(values) // 2)), range=(values.min() - margin, values.max() + margin),
            color=BLUE, alpha=0.8)
    ax.axvline(values.mean(), color=INK, lw=2, label=f"mean {values.mean():.4g}")
    for (name, mean), colour in zip(yardsticks.items(), (GREEN, ORANGE, GREY), strict=False):
        ax.axvline(mean, color=colour, lw=2, ls=(0, (4, 2)), label=f"{name} {mean:.4g}")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set(xlabel="return per episode", ylabel="episodes")
    head(figure, [ax], "Returns of the episodes")
    return save(figure, path)


def plot_paths(paths: Sequence[np.ndarray], goals: np.ndarray, path: Path, floor: Floor = FLOOR,
               plans: Sequence[np.ndarray] | None = None, *, ways: Sequence[np.ndarray] | None = None,
               titles: Sequence[str] = ()) -> Path:
    """Draws a panel for each episode e: `paths[e]` (T, 2) from its start to `goals[e]`.

    `plans[e]`, (H, 2) or (P, H, 2), are drawn below the path, and below them `ways[e]` (W, 2), the recorded way to the
    goal.
    """
    figure, axes = panels(len(paths))
    everything = np.concatenate([*paths, goals])
    for e, ax in enumerate(axes):
        floor.draw(ax, everything)
        if ways is not None:
            ax.plot(*ways[e].T, color=PURPLE, lw=4.0, alpha=0.5, label="recorded way")
        if plans is not None:
            ax.plot(*plans[e].T, color=ORANGE, lw=1.1, alpha=0.75, label="planned")
        ax.plot(*paths[e].T, color=BLUE, lw=2.0, label="executed")
        mark(ax, paths[e][0], goals[e])
        ax.set_title(titles[e] if titles else f"episode {e}", loc="left", fontsize=9)
    head(figure, axes, "Executed paths")
    return save(figure, path)


def plot_candidates(plans_NH2: np.ndarray, trust_ratio_N: np.ndarray, chosen: int, path: Path, floor: Floor = FLOOR, *,
                    goal: np.ndarray | None = None) -> Path:
    """Draws candidate plans (N, H, 2), coloured by `trust_ratio_N`, their error divided by the threshold of trust.

    Plans with a ratio of at most 1 are trusted. `chosen` is the index of the executed plan. Plans that are small beside
    the walls are drawn larger.
    """
    from matplotlib.cm import ScalarMappable

    figure, [ax] = panels(1, width=6.2, height=4.8)
    limit = float(np.clip(np.exp(np.abs(np.log(np.maximum(trust_ratio_N, 1e-6))).max()), 1.5, 20.0))
    scale = ScalarMappable(*trust_scale(limit))
    goals_M2 = NOWHERE if goal is None else np.asarray(goal)[None]
    points = np.concatenate([plans_NH2.reshape(-1, 2), goals_M2])
    floor.draw(ax, points)
    if np.ptp(points, axis=0).max() < SMALL * np.ptp(ax.get_xlim()):
        zoom(ax, points, 0.5)
    for n in np.argsort(-trust_ratio_N):  # the most trusted on top
        style = "-" if trust_ratio_N[n] <= 1 else (0, (3, 2))
        ax.plot(*plans_NH2[n].T, color=scale.to_rgba(trust_ratio_N[n]), lw=1.3, ls=style)
    ax.plot(*plans_NH2[chosen].T, color=INK, lw=5.5, label="executed")
    ax.plot(*plans_NH2[chosen].T, color=scale.to_rgba(trust_ratio_N[chosen]), lw=3.0)
    mark(ax, plans_NH2[chosen, 0], goal)
    bar = figure.colorbar(scale, ax=ax, shrink=0.85, label="error / threshold (solid: trusted, dashed: not)")
    log_ticks(bar.ax.yaxis)
    bar.ax.axhline(1.0, color=INK, lw=2)
    head(figure, [ax], "Candidate plans and how far each is trusted")
    return save(figure, path)


def plot_samples_beside_data(samples: Mapping[str, np.ndarray], data_NH2: np.ndarray, path: Path,
                             floor: Floor = FLOOR) -> Path:
    """Draws trajectories (N, H, 2) of the data and of models, by their names, in panels of the same extent."""
    figure, axes = panels(1 + len(samples))
    extent = np.concatenate([x.reshape(-1, 2) for x in (data_NH2, *samples.values())])
    for ax, (name, x) in zip(axes, {"windows of data": data_NH2, **samples}.items(), strict=True):
        floor.draw(ax, extent)
        ax.plot(*x.T, color=BLUE if name in samples else INK, lw=1.0, alpha=0.6)
        ax.plot(*x[:, 0].T, "o", color=GREEN, ms=3, label="start")
        ax.set_title(f"{len(x)} {name}", loc="left", fontsize=9)
    head(figure, axes, "Samples and data")
    return save(figure, path)


def plot_actions(recorded_NA: np.ndarray, chosen_NA: np.ndarray, path: Path, names: Sequence[str]) -> Path:
    """Draws actions that were chosen over those that were recorded in the same states, with a panel for each entry,
    titled with its name."""
    figure, axes = panels(recorded_NA.shape[1], width=2.6, height=2.6)
    for a, ax in enumerate(axes):
        ends = recorded_NA[:, a].min(), recorded_NA[:, a].max()
        ax.plot(ends, ends, color=GREY, ls=(0, (3, 2)))
        ax.scatter(recorded_NA[:, a], chosen_NA[:, a], s=6, color=BLUE, alpha=0.5, linewidths=0)
        ax.set_title(names[a], loc="left", fontsize=9)
        ax.set(xlabel="recorded", ylabel="chosen")
    head(figure, (), "Actions in recorded states")
    return save(figure, path)


def save_gif(frames: Sequence[np.ndarray], path: Path, frame_ms: int, *, side: int = 320) -> Path:
    """Saves frames (height, width, 3) of uint8 as an endless GIF, shrunk where they are larger than `side` pixels.

    Each frame lasts `frame_ms` milliseconds (at least 20), and the last one a second longer.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((side, side))
    first, *others = [image.quantize(128) for image in images]
    frame_ms = max(frame_ms, 20)  # players ignore shorter times
    with new_file(path) as file:
        first.save(file, "GIF", save_all=True, append_images=others, loop=0,
                   duration=[*[frame_ms] * len(others), frame_ms + 1000])
    return path


# -- world models


def plot_calibration(expected_N: Sequence[float], found_N: Sequence[float], path: Path) -> Path:
    """Draws the errors found over the errors expected, both of bins of steps, as `OpenLoop.calibration` gives."""
    figure, [ax] = panels(1, width=4.4, height=4.0)
    ax.plot(expected_N, expected_N, color=GREY, ls=(0, (3, 2)), label="as expected")
    ax.plot(expected_N, found_N, "o", color=BLUE, label="found")
    if np.any(expected_N):  # 0 has no logarithm
        ax.set(xscale="log", yscale="log")
        log_ticks(ax.xaxis)
        log_ticks(ax.yaxis)
    ax.set(xlabel="expected error (deviations of a step's change)", ylabel="error found")
    head(figure, [ax], "Is the uncertainty calibrated? One step, held-out data")
    return save(figure, path)
