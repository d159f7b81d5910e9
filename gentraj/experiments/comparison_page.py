"""The comparison as pictures and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from envs.making import environment_factory
from envs.rendering.maze import draw_maze

from ..device import pick_device
from ..plots import comparison as figures
from ..plots.page import Picture, write_report
from ..plots.style import Background, Plane, colours
from ..runs.folder import Run, load
from ..training.log import read_metrics
from .entries import Entry
from .groups import Group, conditions
from .summary import RETURN, TOLD_APART
from .tables import tables

CONDITIONS, SAMPLES = 12, 6
PAGE = "comparison.html"


def write_page(comparison: Mapping[str, Any], entries: Sequence[Entry], groups: Mapping[str, Group], out: Path,
               device: str | None) -> Path:
    """Draws the figures, and writes the page with them and the tables; returns its path."""
    pictures, rows = [], []
    for name, group in groups.items():
        title = f"{name}: " if len(groups) > 1 else ""
        drawing = Drawing(comparison["groups"][name], group, [e for e in entries if e.group == name],
                          out / "figures" / name, title, device)
        pictures += drawing.all()
        rows += tables(comparison["groups"][name], title)
    return write_report(out / PAGE, "gentraj: families of models compared", comparison["settings"], rows, pictures,
                        pictures_first=True)


class Drawing:
    """The figures of a group."""

    def __init__(self, found: Mapping[str, Any], group: Group, entries: Sequence[Entry], folder: Path, title: str,
                 device: str | None):
        self.found, self.group, self.entries, self.folder, self.title = found, group, entries, folder, title
        self.palette = {"data": "#333333"} | dict(zip(found["families"], colours(len(found["families"])), strict=True))
        self.whole = [e for e in entries if found["runs"][e.name]["failure"] is None]
        self.runs = {e.family: load(e.folder, device=pick_device(device)) for e in reversed(self.whole)}
        self.runs = {name: self.runs[name] for name in found["families"] if name in self.runs}  # the first seeds
        data = next((run.data for run in self.runs.values()), None)
        self.plane, env = Plane.of(group.dims, data.goal_dims if data else ()), data.env if data else None
        maze = environment_factory(env).maze if env else None
        self.background: Background | None = (
            partial(draw_maze, maze_map=maze.map, scaling=maze.scaling) if maze else None)

    def all(self) -> list[Picture]:
        drawn = [self.conditions(), self.modes(), *self.against_speed(), self.returns()] if self.runs else []
        return [*drawn, *self.curves()]

    def conditions(self) -> Picture:
        data = self.group.shown(CONDITIONS)
        samples = {name: self._plane(self._sample(run, data)) for name, run in self.runs.items()}
        goals = any(run.planning.goal_dims for run in self.runs.values())
        image = figures.plot_conditions(samples, self._plane(data), self.palette, self.folder / "conditions.png",
                                        self.background, goals=goals, plane=self.plane)
        return Picture(f"{self.title}the same {len(data)} conditions", f"{SAMPLES} samples of the first seed of each "
                       "family; the start, and where there are goals the goal, is that of a window of data, dashed.",
                       image)

    def _sample(self, run: Run, data: Tensor) -> Tensor:
        start = conditions(run.model.spec, data.to(run.model.device), run.planning.goal_dims)
        return run.model.sample(start, SAMPLES, steps=run.planning.steps)

    def modes(self) -> Picture:
        forks = []
        for f, fork in enumerate(self.group.forks):
            shares = {"data": self.found["data"]["modes"][f]}
            for name in self.runs:
                seeds = [self.found["runs"][e.name]["modes"]["shares"][f] for e in self.whole if e.family == name]
                shares[name] = np.mean(seeds, 0).tolist()
            forks.append((self._plane(fork.x_MHD), fork.mode_M.numpy(), shares))
        image = figures.plot_modes(forks, self.palette, self.folder / "modes.png", self.background,
                                   plane=self.plane)
        return Picture(f"{self.title}which way", "Windows of data that start about the same place, clustered into ways "
                       "by where they are at a third, at two thirds and at their end; how often each family goes each "
                       "way from the same starts, mean over seeds.", image)

    def against_speed(self) -> list[Picture]:
        data = self.found["data"]["measures"]["two_sample_accuracy"]["mean"]
        kinds = [("told-apart", TOLD_APART, "share told from data (0.5 is best)", data),
                 ("return", RETURN, "return", None)]
        made = []
        for file, key, label, best in kinds:
            points = {name: points for name in self.runs if (points := self._points(name, key))}
            if points:
                image = figures.plot_against(points, self.palette, self.folder / f"{file}-speed.png",
                                             ("plans per second, 64 at a time", label), title="", best=best)
                made.append(Picture(f"{self.title}{label.split(' (')[0]} against speed", "A small point is a seed, a "
                                    "large one the mean of its family.", image))
        return made

    def _points(self, family: str, key: str) -> list[tuple[float, float]]:
        points = []
        for entry in self.whole:
            found = self.found["runs"][entry.name]
            value: Any = found
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if entry.family == family and value is not None:
                points.append((found["speed"]["plans_per_second"]["64"], value))
        return points

    def returns(self) -> Picture:
        title = f"{self.title}return by family"
        values = {name: [y for _, y in points] for name in self.runs if (points := self._points(name, RETURN))}
        if not values:
            return Picture(title, "", None, "the data name no environment to act in")
        lines = {name: scores["return_mean"] for name, scores in self.found["baselines"].items()}
        intervals = {name: self.found["families"][name]["return_ci95"] for name in values}
        image = figures.plot_seeds(values, intervals, lines, self.palette, self.folder / "returns.png",
                                   "return per episode")
        return Picture(title, "Closed loop, the same starts and goals for all. A point is a seed; the interval draws "
                       "seeds with replacement, and of each its episodes.", image)

    def curves(self) -> list[Picture]:
        """Of each family that logged anything."""
        made = []
        for i, name in enumerate(self.found["families"]):
            rows = {f"seed {e.seed}": logged for e in self.entries
                    if e.family == name and (logged := read_metrics(e.folder))}
            if rows:
                image = figures.plot_curves(rows, "model/", self.folder / f"curves-{i}.png", f"Training of {name}")
                made.append(Picture(f"{self.title}loss and health of {name}", "Means between two rows of the log.",
                                    image))
        return made

    def _plane(self, x: Tensor) -> np.ndarray:
        return x[..., list(self.group.dims)].cpu().numpy()
