"""The page of `gentraj compare`: tables and figures of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.maze import draw_maze

from ..device import pick_device
from ..plots import comparison as figures
from ..plots.page import Picture, Table, show, write_report
from ..plots.style import Background, Plane, colours, in_plane
from ..runs.folder import Run, load
from ..training.log import read_metrics
from ..trajectory import SamplingOptions
from .compare import RETURN, TWO_SAMPLE_ACCURACY
from .engine import Task
from .groups import Group
from .statistics import numbers

CONDITIONS, SAMPLES = 12, 6
PAGE = "comparison.html"
ALIKE = 1.2  # a note says if the parameters of families differ by more than this factor
NOTE = ("Means over seeds, with the minimum and maximum in brackets. The last column is one half of the data measured "
        "against the other, which a perfect model would score, or the return of other agents.")
START, GOAL = "quality.measures.start.", "quality.measures.start and goal."

# heading, description, key of a number or function of a family, and key of the number in the last column
GLANCE: list[tuple[str, str, str | Callable[[Mapping[str, Any]], Any], str]] = [
    ("stability", "failed seeds", lambda f: f"{f['failed']} of {f['seeds']}", ""),
    ("stability", "warnings in training", lambda f: f["warnings"], ""),
    ("stability", "range of the return over seeds, over its mean", lambda f: f["spread"].get(RETURN), ""),
    ("stability", "range over seeds of the two-sample accuracy", lambda f: f["spread"].get(TWO_SAMPLE_ACCURACY), ""),
    ("quality", "two-sample accuracy of the nearest neighbour (0.5 is best)", f"{START}two_sample_accuracy",
     "two_sample_accuracy"),
    ("quality", "precision (share)", f"{START}precision", "precision"),
    ("quality", "Frechet distance (std^2)", f"{START}frechet_distance", "frechet_distance"),
    ("quality", "plans to a goal that enter a wall (share)", f"{GOAL}walls_share", "walls_share"),
    ("quality", "dynamics error between timesteps (env)", f"{START}row_error", "row_error"),
    ("coverage", "recall (share)", f"{START}recall", "recall"),
    ("coverage", "coverage (share)", f"{START}coverage", "coverage"),
    ("coverage", "total variation between shares of ways and the data's", "modes.total_variation", "total_variation"),
    ("speed", "plans per second, one at a time", "speed.plans_per_second.1", ""),
    ("speed", "plans per second, 64 at a time", "speed.plans_per_second.64", ""),
    ("speed", "plans per second, 256 at a time", "speed.plans_per_second.256", ""),
    ("speed", "network calls per plan", "speed.calls_per_plan", ""),
    ("speed", "milliseconds per decision of the planner", "speed.decision_ms", ""),
    ("likelihood", "exact, a bound or none", lambda f: f.get("likelihood"), ""),
    ("likelihood", "log-likelihood of data given the start, nats per entry", "likelihood.log_prob_per_entry", ""),
    ("control", "return", RETURN, "others"),
    ("control", "95 % interval of the mean return", lambda f: f.get("return_ci95"), ""),
    ("control", "interquartile mean of the return over seeds, and its 95 % interval",
     lambda f: cell(f.get("return_iqm")), ""),
    ("control", "return above that of the first family, and the 95 % interval, paired where the seeds are the same",
     lambda f: cell(f.get("above_first")), ""),
    ("control", "probability that a run returns more than one of the first family, and its 95 % interval",
     lambda f: cell(f.get("improvement")), ""),
    ("control", "success rate", "control.success_rate", ""),
    ("training", "parameters used for sampling", "speed.parameters_sampling", ""),
    ("training", "parameters trained", "speed.parameters_trained", ""),
    ("training", "steps", "steps", ""),
    ("training", "seconds per step, measured alone", "seconds_per_step", ""),
    ("training", "seconds of the training, in parallel with others", "training_seconds", ""),
]


def write_page(comparison: Mapping[str, Any], tasks: Sequence[Task], groups: Mapping[str, Group], out: Path,
               device: str | None) -> Path:
    """Draws the figures, and writes the page with them and the tables; returns its path."""
    pictures, rows = [], []
    for name, group in groups.items():
        title = f"{name}: " if len(groups) > 1 else ""
        drawing = Drawing(comparison["groups"][name], group, [t for t in tasks if t.cell[0] == name],
                          out / "figures" / name, title, device)
        pictures += drawing.all()
        rows += tables(comparison["groups"][name], title)
    return write_report(out / PAGE, "gentraj: families of models compared", comparison["settings"], rows, pictures,
                        pictures_first=True)


class Drawing:
    """Draws the figures of a group into a folder."""

    def __init__(self, found: Mapping[str, Any], group: Group, tasks: Sequence[Task], folder: Path, title: str,
                 device: str | None):
        self.found, self.group, self.tasks, self.folder, self.title = found, group, tasks, folder, title
        self.palette = {"data": "#333333"} | dict(zip(found["families"], colours(len(found["families"])), strict=True))
        self.whole = [t for t in tasks if found["runs"][t.name]["failure"] is None]
        self.runs = {t.cell[1]: load(t.run, device=pick_device(device)) for t in reversed(self.whole)}
        self.runs = {name: self.runs[name] for name in found["families"] if name in self.runs}  # of the first seeds
        first = next(iter(self.runs.values()), None)
        goal_dims, env = (first.data.goal_dims, first.data.env) if first else ((), None)
        self.times = first.model.spec.times if first else ()
        maze = environment_factory(env).maze if env else None
        self.plane = Plane.of(group.dims, goal_dims, maze is not None)
        self.background: Background | None = (
            partial(draw_maze, maze_map=maze.map, scaling=maze.scaling) if maze else None)

    def all(self) -> list[Picture]:
        drawn = [self.conditions(), self.modes(), *self.against_speed(), self.returns()] if self.runs else []
        return [*drawn, *self.curves()]

    def conditions(self) -> Picture:
        rows = self.group.shown(CONDITIONS)
        data = self.group.x_NHD[rows]
        samples = {name: self._plane(self._sample(run, rows)) for name, run in self.runs.items()}
        goals = any(run.planning.goal_dims for run in self.runs.values())
        image = figures.plot_conditions(samples, self._plane(data), self.palette, self.folder / "conditions.png",
                                        self.background, goals=goals, plane=self.plane)
        return Picture(f"{self.title}the same {len(data)} conditions", f"{SAMPLES} samples of the first seed of each "
                       "family, with the start (and goal, if there are goals) of a window of data, which is dashed.",
                       image)

    def _sample(self, run: Run, rows: Tensor) -> Tensor:
        start = self.group.conditions(run, rows, run.planning.goal_dims)
        return run.model.sample(start, SAMPLES, options=SamplingOptions(steps=run.planning.steps))

    def modes(self) -> Picture:
        forks = []
        for f, fork in enumerate(self.group.forks):
            shares = {"data": self.found["data"]["modes"][f]}
            for name in self.runs:
                seeds = [self.found["runs"][t.name]["modes"]["shares"][f] for t in self.whole if t.cell[1] == name]
                shares[name] = np.mean(seeds, 0).tolist()
            forks.append((self._plane(fork.x_MHD), fork.mode_M.numpy(), shares))
        image = figures.plot_modes(forks, self.palette, self.folder / "modes.png", self.background,
                                   plane=self.plane)
        return Picture(f"{self.title}which way", "Windows of data that start close to each other, clustered into ways "
                       "by their positions after a third, after two thirds and at the end; how often each family goes "
                       "each way from the same starts, mean over seeds.", image)

    def against_speed(self) -> list[Picture]:
        data = self.found["data"]["measures"]["two_sample_accuracy"]["mean"]
        kinds = [("two-sample-accuracy", TWO_SAMPLE_ACCURACY, "two-sample accuracy (0.5 is best)", data),
                 ("return", RETURN, "return", None)]
        pictures = []
        for file, key, label, best in kinds:
            points = {name: points for name in self.runs if (points := self._points(name, key))}
            if points:
                image = figures.plot_against(points, self.palette, self.folder / f"{file}-speed.png",
                                             ("plans per second, 64 at a time", label), best=best)
                pictures.append(Picture(f"{self.title}{label.split(' (')[0]} against speed", "A small point is a seed, "
                                        "a large one the mean of its family.", image))
        return pictures

    def _points(self, family: str, key: str) -> list[tuple[float, float]]:
        """(speed, number) of each seed of a family that has the number."""
        results = [numbers(self.found["runs"][task.name]) for task in self.whole if task.cell[1] == family]
        return [(one["speed.plans_per_second.64"], one[key]) for one in results if key in one]

    def returns(self) -> Picture:
        title = f"{self.title}return by family"
        values = {name: [y for _, y in points] for name in self.runs if (points := self._points(name, RETURN))}
        if not values:
            return Picture(title, "", None, "the data name no environment to act in")
        lines = {name: scores["return_mean"] for name, scores in self.found["baselines"].items()}
        intervals = {name: self.found["families"][name]["return_ci95"] for name in values}
        image = figures.plot_seeds(values, intervals, lines, self.palette, self.folder / "returns.png",
                                   "return per episode")
        return Picture(title, "Closed loop, the same starts and goals for all. A point is a seed; the interval is "
                       "bootstrapped over seeds and episodes.", image)

    def curves(self) -> list[Picture]:
        """The training curves of every family that has logged anything."""
        pictures = []
        for i, name in enumerate(self.found["families"]):
            rows = {f"seed {t.seed}": logged for t in self.tasks
                    if t.cell[1] == name and (logged := read_metrics(t.run))}
            if rows:
                image = figures.plot_curves(rows, "model/", self.folder / f"curves-{i}.png", f"Training of {name}")
                pictures.append(Picture(f"{self.title}loss and health of {name}", "Means between two rows of the log.",
                                        image))
        return pictures

    def _plane(self, x: Tensor) -> np.ndarray:
        return in_plane(x.cpu().numpy(), self.group.dims, self.times)


# -- the tables


def tables(group: Mapping[str, Any], title: str) -> list[Table]:
    """All tables of a group."""
    notes = [(name, text) for name, run in group["runs"].items()
             for text in [*([f"failed: {run['failure']}"] if run["failure"] else []), *run["warnings"]]]
    problems = [Table(f"{title}failures and warnings", ("run", "what"), notes)] if notes else []
    return [_glance(group, title), _runs(group, title), *problems, _everything(group, title)]


def cell(number: Mapping[str, float] | None) -> str | None:
    """A number as "mean [minimum, maximum]"."""
    if number is None:
        return None
    low, mean, high = (show(number[key]) for key in ("min", "mean", "max"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _glance(group: Mapping[str, Any], title: str) -> Table:
    families = group["families"]
    references = {key: cell(number) for key, number in group["data"]["measures"].items()}
    others = [f"{name} {show(scores['return_mean'])}" for name, scores in group["baselines"].items()]
    references |= {"total_variation": show(group["data"]["total_variation"]), "others": ", ".join(others)}
    rows = [(heading, text, *(what(f) if callable(what) else cell(f["numbers"].get(what)) for f in families.values()),
             references.get(own)) for heading, text, what, own in GLANCE]
    sizes = [size["mean"] for f in families.values() if (size := f["numbers"].get("speed.parameters_sampling"))]
    note = NOTE if not sizes or max(sizes) <= ALIKE * min(sizes) else (
        f"{NOTE} The parameters used for sampling differ by a factor of {max(sizes) / min(sizes):.2f}: this is no "
        "comparison at equal size.")
    return Table(f"{title}at a glance", ("", "measure", *families, "data, or others"),
                 [row for row in rows if any(value is not None for value in row[2:-1])], note)


def _runs(group: Mapping[str, Any], title: str) -> Table:
    rows = []
    for name, run in group["runs"].items():
        ok = run["failure"] is None
        control, start = (run["control"], run["quality"]["measures"]["start"]) if ok else ({}, {})
        rows.append((name, "failed" if not ok else "ok", run["steps"], control.get("return_mean"),
                     control.get("return_ci95"), control.get("success_rate"), start.get("two_sample_accuracy"),
                     start.get("coverage"), len(run["warnings"])))
    return Table(f"{title}runs", ("run", "", "steps", "return", "95 % interval over episodes", "success",
                                  "two-sample accuracy", "coverage", "warnings"), rows)


def _everything(group: Mapping[str, Any], title: str) -> Table:
    families = group["families"]
    keys = dict.fromkeys(key for f in families.values() for key in f["numbers"] if ".data." not in key)
    rows = [(key.removeprefix("quality.measures."), *(cell(f["numbers"].get(key)) for f in families.values()),
             cell(group["data"]["measures"].get(key.rsplit(".", 1)[-1])) if key.startswith("quality") else None)
            for key in keys]
    return Table(f"{title}every number", ("key", *families, "data"), rows, NOTE)
