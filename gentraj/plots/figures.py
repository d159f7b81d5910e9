"""Figures of one run. Every function takes arrays, writes one file and returns its path.

Positions are (..., 2) in environment units; `background` is a function that draws the walls of the environment.
matplotlib is imported when a figure is drawn. It is used without pyplot, so that no global state changes and no display
is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import new_file
from .style import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    POSITIONS,
    Background,
    Plane,
    alone,
    colours,
    draw_floor,
    head,
    is_number,
    log_ticks,
    mark,
    panels,
    save,
    smooth,
    trust_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOWHERE = np.empty((0, 2))


def plot_loss(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str = "Training loss") -> Path:
    """Draws every loss in `rows` of metrics.jsonl over the training step: faint as logged, and bold when smoothed.

    Losses are the numbers with "loss" in their names. Raises ValueError where there are none.
    """
    names = sorted({key for row in rows for key, value in row.items() if "loss" in key and is_number(value)})
    if not names:
        raise ValueError(f"no loss in {len(rows)} rows of metrics; train first, or log for longer")
    figure, [ax] = panels(1, width=7.0, height=3.6)
    curves = {name: np.array([[row["step"], row[name]] for row in rows if is_number(row.get(name))]) for name in names}
    for colour, (name, curve) in zip(colours(len(curves)), curves.items(), strict=True):
        ax.plot(*curve.T, color=colour, lw=0.8, alpha=0.35)
        ax.plot(curve[:, 0], smooth(curve[:, 1]), alone(curve), color=colour, lw=1.8, label=name)
    if all((curve[:, 1] > 0).all() for curve in curves.values()):
        ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="loss (log scale)" if ax.get_yscale() == "log" else "loss")
    ax.set_title(title, loc="left")
    ax.legend(frameon=False)
    return save(figure, path)


def plot_scores(bars: Mapping[str, tuple[float, float, float]], path: Path, unit: str) -> Path:
    """Draws `bars`, name -> (mean, low, high) of an interval. The first bar is coloured, the others are for comparison.

    `unit` labels the axis. Raises ValueError where there are no bars.
    """
    if not bars:
        raise ValueError("no scores to draw; give at least one name -> (mean, low, high)")
    figure, [ax] = panels(1, width=7.0, height=0.9 + 0.5 * len(bars))
    mean, low, high = np.array(list(bars.values()), dtype=float).T
    rows = np.arange(len(bars))
    ax.barh(rows, mean, color=[BLUE] + [GREY] * (len(bars) - 1), height=0.62)
    ax.errorbar(mean, rows, xerr=[mean - low, high - mean], fmt="none", ecolor=INK, capsize=4, lw=1.4)
    left, right = 1.05 * min(low.min(), 0.0), max(high.max(), 0.0)
    for row in rows:
        ax.annotate(f"{mean[row]:.4g}", (max(high[row], 0.0), row), (8, 0), textcoords="offset points", va="center")
    ax.set_yticks(rows, list(bars))
    ax.invert_yaxis()
    ax.set_xlim(left, 1.14 * right or -0.14 * left or 1.14)  # with room for the numbers beside the bars
    ax.set_xlabel(unit)
    ax.set_title("Scores", loc="left")
    ax.grid(axis="y", visible=False)
    return save(figure, path)


def plot_learning_curve(rows: Sequence[Mapping[str, Any]], yardsticks: Mapping[str, float], path: Path, *,
                        title: str = "Score while training") -> Path:
    """Draws the mean return and its interval in `rows` of scores.jsonl over the training step.

    `yardsticks` are name -> mean return of other agents, drawn as lines. Raises ValueError where there are no rows.
    """
    if not rows:
        raise ValueError("no scores to draw; give at least one row")
    figure, [ax] = panels(1, width=7.0, height=3.2)
    step, mean = ([row[key] for row in rows] for key in ("step", "return_mean"))
    low, high = np.array([row["return_ci95"] for row in rows]).T
    ax.fill_between(step, low, high, color=BLUE, alpha=0.2, lw=0)
    ax.plot(step, mean, "o-", color=BLUE, ms=4, lw=1.8, label="agent")
    for (name, value), colour in zip(yardsticks.items(), (GREEN, ORANGE, GREY), strict=False):
        ax.axhline(value, color=colour, lw=1.6, ls=(0, (4, 2)), label=name)
    ax.set(xlabel="training step", ylabel="return per episode")
    ax.set_title(title, loc="left")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def plot_returns(returns: Sequence[float], yardsticks: Mapping[str, float], path: Path) -> Path:
    """Draws a histogram of the returns of episodes; `yardsticks`, name -> mean return of other agents, are lines."""
    from matplotlib.ticker import MaxNLocator

    figure, [ax] = panels(1, width=7.0, height=3.2)
    values = np.asarray(returns, float)
    low, high = values.min(), values.max()
    margin = max(0.5, 1e-3 * abs(low)) if high - low <= 1e-9 * abs(low) else 0.0  # returns that differ by rounding only
    ax.hist(values, bins=min(30, max(5, len(values) // 2)), range=(low - margin, high + margin), color=BLUE, alpha=0.8)
    ax.axvline(values.mean(), color=INK, lw=2, label=f"mean {values.mean():.4g}")
    for (name, mean), colour in zip(yardsticks.items(), (GREEN, ORANGE, GREY), strict=False):
        ax.axvline(mean, color=colour, lw=2, ls=(0, (4, 2)), label=f"{name} {mean:.4g}")
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set(xlabel="return per episode", ylabel="episodes")
    ax.set_title("Returns of the episodes", loc="left")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, path)


def plot_paths(paths: Sequence[np.ndarray], starts: np.ndarray, goals: np.ndarray, path: Path,
               background: Background | None = None, plans: Sequence[np.ndarray] | None = None, *,
               title: str = "Executed paths", plane: Plane = POSITIONS) -> Path:
    """Draws a panel for each episode e: `paths[e]` (T, 2) from `starts[e]` to `goals[e]`.

    `plans[e]`, (H, 2) or (P, H, 2), are drawn below the path.
    """
    figure, axes = panels(len(paths))
    everything = np.concatenate([*paths, starts, goals])
    for e, ax in enumerate(axes):
        draw_floor(ax, background, everything, plane)
        for k, plan in enumerate([] if plans is None else np.reshape(plans[e], (-1, *np.shape(plans[e])[-2:]))):
            ax.plot(*plan.T, color=ORANGE, lw=1.1, alpha=0.75, label="planned" if k == 0 else None)
        ax.plot(*paths[e].T, color=BLUE, lw=2.0, label="executed")
        mark(ax, starts[e], goals[e])
        ax.set_title(f"episode {e}", loc="left", fontsize=9)
    head(figure, axes, title)
    return save(figure, path)


def plot_candidates(plans_NH2: np.ndarray, trust_ratio_N: np.ndarray, chosen: int, path: Path,
                    background: Background | None = None, *, goal: np.ndarray | None = None,
                    title: str = "Candidate plans and how far each is trusted", plane: Plane = POSITIONS) -> Path:
    """Draws candidate plans (N, H, 2), coloured by `trust_ratio_N`, their error divided by the threshold of trust.

    Plans with a ratio of at most 1 are trusted. `chosen` is the index of the executed plan.
    """
    from matplotlib.cm import ScalarMappable

    figure, [ax] = panels(1, width=6.2, height=4.8)
    limit = float(np.clip(np.exp(np.abs(np.log(np.maximum(trust_ratio_N, 1e-6))).max()), 1.5, 20.0))
    scale = ScalarMappable(*trust_scale(limit))
    goals_M2 = NOWHERE if goal is None else np.asarray(goal)[None]
    draw_floor(ax, background, np.concatenate([plans_NH2.reshape(-1, 2), goals_M2]), plane)
    for n in np.argsort(-trust_ratio_N):  # the most trusted on top
        style = "-" if trust_ratio_N[n] <= 1 else (0, (3, 2))
        ax.plot(*plans_NH2[n].T, color=scale.to_rgba(trust_ratio_N[n]), lw=1.3, ls=style)
    ax.plot(*plans_NH2[chosen].T, color=INK, lw=5.5, label="executed")
    ax.plot(*plans_NH2[chosen].T, color=scale.to_rgba(trust_ratio_N[chosen]), lw=3.0)
    mark(ax, plans_NH2[chosen, 0], goal)
    bar = figure.colorbar(scale, ax=ax, shrink=0.85, label="error / threshold (solid: trusted, dashed: not)")
    log_ticks(bar.ax.yaxis, (1, 2, 5))
    bar.ax.axhline(1.0, color=INK, lw=2)
    head(figure, [ax], title)
    return save(figure, path)


def plot_samples_beside_data(samples_NH2: np.ndarray, data_NH2: np.ndarray, path: Path,
                             background: Background | None = None, *, plane: Plane = POSITIONS) -> Path:
    """Draws trajectories (N, H, 2) of the model and of the data in two panels of the same extent."""
    figure, axes = panels(2)
    both = np.concatenate([samples_NH2.reshape(-1, 2), data_NH2.reshape(-1, 2)])
    kinds = [("windows of data", INK, data_NH2), ("samples", BLUE, samples_NH2)]
    for ax, (name, colour, x) in zip(axes, kinds, strict=True):
        draw_floor(ax, background, both, plane)
        ax.plot(*x.T, color=colour, lw=1.0, alpha=0.6)
        ax.plot(*x[:, 0].T, "o", color=GREEN, ms=3, label="start")
        ax.set_title(f"{len(x)} {name}", loc="left", fontsize=9)
    head(figure, axes, "Samples and data")
    return save(figure, path)


def denoising_strip(frames: Sequence[np.ndarray], levels: Sequence[float], path: Path,
                    background: Background | None = None, *, plane: Plane = POSITIONS,
                    data_M2: np.ndarray = NOWHERE) -> Path:
    """Draws a panel for each frame (N, H, 2) of a denoising, titled with its noise level.

    Panels show the extent of the last frame and of `data_M2`; noise outside of it is clipped.
    """
    figure, axes = panels(len(frames), columns=min(len(frames), 6), width=2.0, height=2.3)
    for ax, frame, level in zip(axes, frames, levels, strict=True):
        draw_floor(ax, background, np.concatenate([frames[-1].reshape(-1, 2), data_M2]), plane)
        _draw_noisy(ax, frame)
        ax.set_title(f"noise {level:.2f}", loc="left", fontsize=9)
    head(figure, axes, "Denoising, from noise to plan")
    return save(figure, path)


def denoising_gif(frames: Sequence[np.ndarray], levels: Sequence[float], path: Path,
                  background: Background | None = None, *, plane: Plane = POSITIONS,
                  data_M2: np.ndarray = NOWHERE, frame_ms: int = 150, last_ms: int = 1500) -> Path:
    """Draws the frames of `denoising_strip` as an endless GIF.

    Each frame lasts `frame_ms` milliseconds, and the last one `last_ms`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure, [ax] = panels(1, width=4.6, height=4.2)
    figure.set_dpi(DPI * 0.75)
    draw_floor(ax, background, np.concatenate([frames[-1].reshape(-1, 2), data_M2]), plane)
    canvas, images = FigureCanvasAgg(figure), []
    ax.set_title("Denoising", loc="left", fontsize=10)
    canvas.draw()
    figure.set_layout_engine("none")  # a layout for each frame would make the figure shake
    for frame, level in zip(frames, levels, strict=True):
        drawn = _draw_noisy(ax, frame)
        ax.set_title(f"Denoising: noise {level:.2f}", loc="left", fontsize=10)
        canvas.draw()
        images.append(Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB").quantize(128))
        for artist in drawn:
            artist.remove()
    return _save_gif(images, path, [frame_ms] * (len(images) - 1) + [last_ms])


def save_gif(frames: Sequence[np.ndarray], path: Path, frame_ms: int, *, side: int = 320, last_ms: int = 1000) -> Path:
    """Saves frames (height, width, 3) of uint8 as an endless GIF, shrunk where they are larger than `side` pixels.

    Each frame lasts `frame_ms` milliseconds (at least 20), and the last one `last_ms`. Raises ValueError where there
    are no frames.
    """
    from PIL import Image

    if not frames:
        raise ValueError("no frames to save; give at least one")
    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((side, side))
    frame_ms = max(frame_ms, 20)  # players ignore shorter times
    return _save_gif([image.quantize(64) for image in images], path, [frame_ms] * (len(frames) - 1) + [last_ms])


def _save_gif(images: Sequence[Any], path: Path, times_ms: Sequence[int]) -> Path:
    path = Path(path)
    with new_file(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=times_ms, loop=0)
    return path


# -- world models


def plot_errors(groups: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> Path:
    """Draws open-loop errors on a logarithmic scale, with a panel for each group of entries.

    `groups` are name of the predicted entries -> name of the prediction -> (T,) errors, as `OpenLoop.errors` gives.
    """
    figure, axes = panels(len(groups), width=3.6)
    for ax, (name, guesses) in zip(axes, groups.items(), strict=True):
        for colour, (guess, error_T) in zip([BLUE, ORANGE, GREY] if len(guesses) == 3 else [BLUE, GREY],
                                            guesses.items(), strict=True):
            ax.plot(np.arange(1, len(error_T) + 1), error_T, color=colour, lw=1.8, label=guess,
                    marker="o" if len(error_T) == 1 else "")
        if np.concatenate([*guesses.values()]).any():  # a logarithmic scale has no 0
            ax.set_yscale("log")
        ax.tick_params(which="both", labelsize=8)
        ax.set_title(name, loc="left", fontsize=9)
        ax.set(xlabel="steps", ylabel="error (environment units)")
        ax.legend(frameon=False, fontsize=8)
    head(figure, (), "Open loop: root mean square error against the horizon")
    return save(figure, path)


def plot_calibration(expected_N: Sequence[float], found_N: Sequence[float], path: Path) -> Path:
    """Draws the errors found over the errors expected, both of bins of steps, as `OpenLoop.calibration` gives."""
    figure, [ax] = panels(1, width=4.4, height=4.0)
    both = np.array([*expected_N, *found_N])
    span = [both[both > 0].min() * 0.8, both.max() * 1.25] if (both > 0).any() else [0.1, 1.0]
    ax.plot(span, span, color=GREY, ls=(0, (3, 2)), label="as expected")
    ax.plot(expected_N, found_N, "o-", color=BLUE, label="found")
    ax.set(xscale="log", yscale="log", xlim=span, ylim=span, xlabel="expected error (deviations of a step's change)",
           ylabel="error found")
    for axis in (ax.xaxis, ax.yaxis):
        log_ticks(axis, (1, 2, 5) if span[1] / span[0] < 10**2.5 else (1,), 8)
    ax.legend(frameon=False)
    head(figure, (), "Is the uncertainty calibrated? One step, held-out data")
    return save(figure, path)


def plot_imagined(true_TO: np.ndarray, mean_TO: np.ndarray, samples_NTO: np.ndarray, path: Path,
                  names: Sequence[str]) -> Path:
    """Draws entries `names` of an observation over time: the true values, the model's mean, and its samples."""
    figure, axes = panels(true_TO.shape[1], columns=3, width=3.2, height=2.2)
    step_T = np.arange(len(true_TO))
    for o, (ax, name) in enumerate(zip(axes, names, strict=True)):
        for n, sample_TO in enumerate(samples_NTO):
            ax.plot(step_T, sample_TO[:, o], color=BLUE, lw=0.8, alpha=0.5, label="sampled" if n == 0 else None)
        ax.plot(step_T, mean_TO[:, o], color=ORANGE, lw=1.8, label="expected")
        ax.plot(step_T, true_TO[:, o], color=INK, lw=1.5, ls=(0, (3, 2)), label="true")
        ax.set_title(name, loc="left", fontsize=9)
    head(figure, axes, "True and imagined, by the same actions")
    return save(figure, path)


def plot_off_policy(returns: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path, title: str) -> Path:
    """Draws the mean return of policies in the world model over that in the environment, with 95 % intervals.

    `returns` are name of the policy -> returns of its episodes in the model, and in the environment.
    """
    figure, [ax] = panels(1, width=5.4, height=4.6)
    for colour, (name, pair) in zip(colours(len(returns)), returns.items(), strict=True):
        imagined_N, true_N = pair
        ax.errorbar(true_N.mean(), imagined_N.mean(), xerr=_error(true_N), yerr=_error(imagined_N), fmt="o",
                    color=colour, capsize=3, label=name)
    low, high = (f([f(np.append(*pair)) for pair in returns.values()]) for f in (min, max))
    ax.plot([low, high], [low, high], color=GREY, ls=(0, (3, 2)))
    ax.set(xlabel="return in the environment", ylabel="return in the world model")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    head(figure, (), title)
    return save(figure, path)


def _draw_noisy(ax: Axes, frame_NH2: np.ndarray) -> list[Any]:
    """Colours timesteps from dark (first) to light (last), which shows their order where noise hides the line."""
    lines = ax.plot(*frame_NH2.T, color=GREY, lw=0.6, alpha=0.5)
    order = np.tile(np.arange(frame_NH2.shape[1]), len(frame_NH2))
    return [*lines, ax.scatter(*frame_NH2.reshape(-1, 2).T, c=order, cmap="viridis", s=7, zorder=3)]


def _error(x_N: np.ndarray) -> float:
    """1.96 standard errors of the mean; NaN, which is not drawn, for a single number, which tells of no error."""
    return 1.96 * float(np.std(x_N, ddof=1)) / len(x_N) ** 0.5 if len(x_N) > 1 else np.nan
