"""The page of `gentraj compare`: tables and figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.maze import draw_maze

from ..device import pick_device
from ..plots import comparison as figures
from ..plots.page import Picture, Table, show, write_report
from ..plots.style import Background, Plane, colours, in_plane
from ..runs.folder import load
from ..runs.planner import PlannerRun
from ..training.log import read_metrics
from ..trajectory import SamplingOptions
from .compare import Comparison, FamilyResult, GroupResult, RunResult, Spread
from .engine import Task
from .groups import Group

CONDITIONS, SAMPLES = 12, 6
PAGE = "comparison.html"
ALIKE = 1.2  # a note says if the parameters of families differ by more than this factor
NOTE = ("Means over seeds, with the minimum and maximum in brackets. The last column is one half of the data measured "
        "against the other, which a perfect model would score, or the return of other agents.")
START, GOAL = "quality.measures.start.", "quality.measures.start and goal."

# Heading, description, and key of a number of a family; numbers of the data stand beside it, where they have the key.
GLANCE: list[tuple[str, str, str]] = [
    ("stability", "failed seeds", "failed"),
    ("stability", "warnings in training", "warnings"),
    ("stability", "range of the return over seeds, over its mean", "return_range"),
    ("stability", "range over seeds of the two-sample accuracy", "accuracy_range"),
    ("quality", "two-sample accuracy of the nearest neighbour (0.5 is best)", f"{START}two_sample_accuracy"),
    ("quality", "precision (share)", f"{START}precision"),
    ("quality", "Frechet distance (std^2)", f"{START}frechet_distance"),
    ("quality", "plans to a goal that enter a wall (share)", f"{GOAL}walls_share"),
    ("quality", "dynamics error between timesteps (env)", f"{START}row_error"),
    ("coverage", "recall (share)", f"{START}recall"),
    ("coverage", "coverage (share)", f"{START}coverage"),
    ("coverage", "total variation between shares of ways and the data's", "modes.total_variation"),
    ("speed", "network calls per decision", "speed.calls"),
    ("speed", "CPU milliseconds per decision", "speed.cpu_ms"),
    ("speed", "plans per second, one at a time", "speed.plans_per_second.1"),
    ("speed", "plans per second, 64 at a time", "speed.plans_per_second.64"),
    ("speed", "plans per second, 256 at a time", "speed.plans_per_second.256"),
    ("speed", "network calls per plan", "speed.calls_per_plan"),
    ("likelihood", "exact, a bound or none", "likelihood"),
    ("likelihood", "log-likelihood of data given the start, nats per entry", "likelihood.log_prob_per_entry"),
    ("control", "return, and its 95 % interval", "return"),
    ("control", "interquartile mean of the return over seeds, and its 95 % interval", "return_iqm"),
    ("control", "return above that of the first family, and the 95 % interval, paired where the seeds are the same",
     "above_first"),
    ("control", "probability that a run returns more than one of the first family, and its 95 % interval",
     "improvement"),
    ("control", "success rate", "control.success_rate"),
    ("training", "parameters used for sampling", "speed.parameters_sampling"),
    ("training", "parameters trained", "speed.parameters_trained"),
    ("training", "steps", "steps"),
    ("training", "seconds per step, measured alone", "seconds_per_step"),
    ("training", "seconds of the training, in parallel with others", "training_seconds"),
]


def write_page(comparison: Comparison, tasks: Sequence[Task], groups: Mapping[str, Group], out: Path,
               device: str | None) -> Path:
    """Draws the figures, and writes the page with them and the tables; returns its path."""
    pictures = frontiers(comparison, out / "figures")
    rows: list[Table] = []
    for name, group in groups.items():
        title = f"{name}: " if len(groups) > 1 else ""
        drawing = Drawing(comparison.groups[name], group, [task for task in tasks if task.cell[0] == name],
                          out / "figures" / name, title, device)
        pictures = [*drawing.all(), *pictures]
        rows += tables(comparison.groups[name], title)
    return write_report(out / PAGE, "gentraj: families of models compared", comparison.settings, rows, pictures,
                        pictures_first=True)


def frontiers(comparison: Comparison, folder: Path) -> list[Picture]:
    """What decisions cost and what they are worth, for each environment with at least two families."""
    pictures = []
    for i, environment in enumerate(dict.fromkeys(point.environment for point in comparison.frontier)):
        points = [point for point in comparison.frontier if point.environment == environment]
        if len(points) > 1:
            image = figures.plot_frontier(
                {point.name: (point.cpu_ms, point.worth, point.interval, point.on_frontier) for point in points},
                folder / f"frontier-{i}.png", comparison.worth)
            pictures.append(Picture("what a decision costs and what it is worth", "No other point beats those of the "
                                    "line in both. CPU time of a decision for one environment, in one thread.", image))
    return pictures


class Drawing:
    """Draws the figures of a group into a folder."""

    def __init__(self, found: GroupResult, group: Group, tasks: Sequence[Task], folder: Path, title: str,
                 device: str | None):
        self.found = found
        self.group = group
        self.tasks = tasks
        self.folder = folder
        self.title = title
        self.palette = {"data": "#333333"} | dict(zip(found.families, colours(len(found.families)), strict=True))
        first_tasks = {task.cell[1]: task for task in reversed(tasks) if found.runs[task.name].failure is None}
        runs = {name: load(first_tasks[name].run, device=pick_device(device))
                for name in found.families if name in first_tasks}
        self.first_tasks = first_tasks
        self.planners = {name: run for name, run in runs.items() if isinstance(run, PlannerRun)}
        first = next(iter(self.planners.values()), None)
        maze = None
        if first is not None and first.data.env is not None:
            maze = environment_factory(first.data.env).maze
        self.times = () if first is None else first.model.spec.times
        self.plane = Plane.of(group.dims, () if first is None else first.data.goal_dims, maze is not None)
        self.background: Background | None = None
        if maze is not None:
            self.background = partial(draw_maze, maze_map=maze.map, scaling=maze.scaling)

    def all(self) -> list[Picture]:
        drawn = [self.conditions(), self.modes()] if self.planners else []
        return [*drawn, self.returns(), *self.curves()]

    def conditions(self) -> Picture:
        rows = self.group.shown(CONDITIONS)
        data = self.group.x_NHD[rows]
        samples = {name: self._plane(self._sample(name, run, rows)) for name, run in self.planners.items()}
        goals = any(run.planning.goal_dims for run in self.planners.values())
        image = figures.plot_conditions(samples, self._plane(data), self.palette, self.folder / "conditions.png",
                                        self.background, goals=goals, plane=self.plane)
        return Picture(f"{self.title}the same {len(data)} conditions", f"{SAMPLES} samples of the first seed of each "
                       "family, with the start (and goal, if there are goals) of a window of data, which is dashed.",
                       image)

    def _sample(self, name: str, run: PlannerRun, rows: Tensor) -> Tensor:
        start = self.group.conditions(run, rows, run.planning.goal_dims)
        steps = self.first_tasks[name].measures[0].depends_on["steps"] or run.planning.steps
        return run.model.sample(start, SAMPLES, options=SamplingOptions(steps=steps))

    def modes(self) -> Picture:
        forks = []
        for f, fork in enumerate(self.group.forks):
            shares = {"data": fork.shares(fork.mode_M)}
            for name in self.planners:
                seeds = [run.modes.shares[f] for run in self._of(name) if run.modes is not None]
                shares[name] = np.mean(seeds, 0).tolist()
            forks.append((self._plane(fork.x_MHD), fork.mode_M.numpy(), shares))
        image = figures.plot_modes(forks, self.palette, self.folder / "modes.png", self.background, plane=self.plane)
        return Picture(f"{self.title}which way", "Windows of data that start close to each other, clustered into ways "
                       "by their positions after a third, after two thirds and at the end; how often each family goes "
                       "each way from the same starts, mean over seeds.", image)

    def _of(self, family: str) -> list[RunResult]:
        """The runs of a family that have not failed."""
        return [run for run in self.found.runs.values() if run.family == family and run.failure is None]

    def returns(self) -> Picture:
        title = f"{self.title}return by family"
        values = {name: [run.control.return_mean for run in self._of(name) if run.control and run.returns]
                  for name in self.found.families}
        values = {name: [mean for mean in means if mean is not None] for name, means in values.items() if means}
        if not values:
            why = [run.control.left_out for run in self.found.runs.values() if run.control and run.control.left_out]
            return Picture(title, "", None, why[0] if why else "all runs failed")
        over = {name: self.found.families[name].numbers["return"] for name in values}
        intervals = {name: (found.min, found.max) for name, found in over.items()}
        image = figures.plot_seeds(values, intervals, self.found.baselines, self.palette, self.folder / "returns.png",
                                   "return per episode")
        return Picture(title, "Closed loop, the same starts and goals for all. A point is a seed; the interval is "
                       "bootstrapped over seeds and episodes.", image)

    def curves(self) -> list[Picture]:
        """The training curves of every family that has logged anything."""
        pictures = []
        for i, name in enumerate(self.found.families):
            logged = {f"seed {task.seed}": read_metrics(task.run) for task in self.tasks if task.cell[1] == name}
            rows = {seed: found for seed, found in logged.items() if found}
            prefix = "model/" if name in self.planners else "policy/"
            if any(key.startswith(prefix) for found in rows.values() for key in found[0]):
                image = figures.plot_curves(rows, prefix, self.folder / f"curves-{i}.png", f"Training of {name}")
                pictures.append(Picture(f"{self.title}loss and health of {name}", "Means between two rows of the log.",
                                        image))
        return pictures

    def _plane(self, x: Tensor) -> np.ndarray:
        return in_plane(x.cpu().numpy(), self.group.dims, self.times)


# -- the tables


def tables(group: GroupResult, title: str) -> list[Table]:
    """All tables of a group."""
    notes = []
    for name, run in group.runs.items():
        if run.failure is not None:
            notes.append((name, f"failed: {run.failure}"))
        notes += [(name, text) for text in run.warnings]
    problems = [Table(f"{title}failures and warnings", ("run", "what"), notes)] if notes else []
    return [_glance(group, title), _runs(group, title), *problems]


def cell(number: Spread | None) -> str | None:
    """A number as "mean [minimum, maximum]"."""
    if number is None:
        return None
    low, mean, high = (show(value) for value in (number.min, number.mean, number.max))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _glance(group: GroupResult, title: str) -> Table:
    rows = []
    for heading, text, key in GLANCE:
        row = [_of_family(family, key) for family in group.families.values()]
        if any(value is not None for value in row):
            rows.append((heading, text, *row, _of_data(group, key)))
    sizes = [family.numbers["speed.parameters_sampling"].mean for family in group.families.values()
             if "speed.parameters_sampling" in family.numbers]
    note = NOTE
    if sizes and max(sizes) > ALIKE * min(sizes):
        note += (f" The parameters used for sampling differ by a factor of {max(sizes) / min(sizes):.2f}: this is no "
                 "comparison at equal size.")
    return Table(f"{title}at a glance", ("", "measure", *group.families, "data, or others"), rows, note)


def _of_family(family: FamilyResult, key: str) -> str | int | None:
    """What a family has under a key of `GLANCE`."""
    if key == "failed":
        return f"{family.failed} of {family.seeds}"
    if key in ("warnings", "likelihood"):
        return getattr(family, key)
    return cell(family.numbers.get(key))


def _of_data(group: GroupResult, key: str) -> str | None:
    """What stands beside the families: the data measured against themselves, or the returns of other agents."""
    if key == "return":
        return ", ".join(f"{name} {show(mean)}" for name, mean in group.baselines.items()) or None
    own = key.startswith(("quality", "modes"))
    return cell(group.data.get(key.rsplit(".", 1)[-1])) if own else None


def _runs(group: GroupResult, title: str) -> Table:
    rows = []
    for name, run in group.runs.items():
        start = run.quality.measures["start"] if run.quality else {}
        control = run.control
        rows.append((name, "ok" if run.failure is None else "failed", run.steps,
                     control and control.return_mean, control and control.return_ci95, control and control.success_rate,
                     start.get("two_sample_accuracy"), start.get("coverage"), len(run.warnings)))
    return Table(f"{title}runs", ("run", "", "steps", "return", "95 % interval over episodes", "success",
                                  "two-sample accuracy", "coverage", "warnings"), rows)
