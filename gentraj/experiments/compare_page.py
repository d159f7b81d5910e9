"""The page of `gentraj compare`: tables and figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.maze import draw_maze

from ..device import pick_device
from ..plots import comparison as figures
from ..plots.page import Picture, Table, show, write_report
from ..plots.style import Plane, colours, in_plane
from ..runs.folder import load
from ..runs.planner import PlannerRun
from .comparison import Comparison, GroupResult, Options, Spread
from .groups import Group

CONDITIONS, SAMPLES = 12, 6
PAGE = "comparison.html"
NOTE = ("Means over seeds, with the minimum and maximum in brackets. The last column is one half of the data measured "
        "against the other, which a perfect model would score, or the return of other agents.")
START, GOAL = "quality.measures.start.", "quality.measures.start and goal."

# Heading, description, and key of a number of a family; numbers of the data stand beside it, where they have the key.
GLANCE: list[tuple[str, str, str]] = [
    ("stability", "failed seeds", "failed"),
    ("stability", "warnings in training", "warnings"),
    ("stability", "return, and its range over seeds", "control.return_mean"),
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
    ("speed", "network calls per plan", "speed.calls_per_plan"),
    ("speed", "plans per second, one at a time", "speed.plans_per_second.1"),
    ("speed", "plans per second, 64 at a time", "speed.plans_per_second.64"),
    ("speed", "plans per second, 256 at a time", "speed.plans_per_second.256"),
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
    ("training", "seconds of the training, in parallel with others", "training_seconds"),
]


def write_page(comparison: Comparison, groups: Mapping[str, Group], out: Path, device: str | None) -> Path:
    """Draws the figures, and writes the page with them and the tables; returns its path."""
    pictures: list[Picture] = []
    rows: list[Table] = []
    for name, found in comparison.groups.items():
        title = f"{name}: " if len(groups) > 1 else ""
        folder = out / "figures" / name
        pictures += [*conditions(found, groups[name], folder, title, device), returns(found, folder, title)]
        rows += tables(found, title)
    pictures += frontiers(comparison, out / "figures")
    return write_report(out / PAGE, "gentraj: families of models compared", comparison.settings, [*pictures, *rows])


# -- the figures


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


def conditions(found: GroupResult, group: Group, folder: Path, title: str, device: str | None) -> list[Picture]:
    """Samples of every family that plans, under the same conditions; none where no run plans."""
    firsts = {run.family: run for run in reversed(found.runs.values()) if run.quality is not None}
    planners: dict[str, PlannerRun] = {}
    for name in found.families:
        run = load(Path(firsts[name].folder), device=pick_device(device)) if name in firsts else None
        if isinstance(run, PlannerRun):
            planners[name] = run
    if not planners:
        return []
    first = next(iter(planners.values()))
    maze = None if first.data.env is None else environment_factory(first.data.env).maze
    background = None if maze is None else partial(draw_maze, maze_map=maze.map, scaling=maze.scaling)
    rows = group.shown(CONDITIONS)
    times = first.model.spec.times
    samples = {}
    for name, run in planners.items():
        start = group.conditions(run, rows, run.planning.goal_dims)
        sampling = Options(0, 0, steps=firsts[name].sampling_steps).sampling(run)
        x_CNHD = run.model.sample(start, SAMPLES, options=sampling)
        samples[name] = in_plane(x_CNHD.cpu().numpy(), group.dims, times)
    data_CH2 = in_plane(group.x_NHD[rows].numpy(), group.dims, times)
    image = figures.plot_conditions(
        samples, data_CH2, _palette(found), folder / "conditions.png", background,
        goals=any(run.planning.goal_dims for run in planners.values()),
        plane=Plane.of(group.dims, first.data.goal_dims, maze is not None))
    return [Picture(f"{title}the same {len(rows)} conditions", f"{SAMPLES} samples of the first seed of each family, "
                    "with the start (and goal, if there are goals) of a window of data, which is dashed.", image)]


def returns(found: GroupResult, folder: Path, title: str) -> Picture:
    """The return of every seed, and the interval of each family."""
    title = f"{title}return by family"
    values: dict[str, list[float]] = {}
    left_out = "all runs failed"
    for run in found.runs.values():
        if run.control is not None and run.control.return_mean is not None:
            values.setdefault(run.family, []).append(run.control.return_mean)
        elif run.control is not None and run.control.left_out is not None:
            left_out = run.control.left_out
    if not values:
        return Picture(title, "", None, left_out)
    intervals = {name: (found.families[name]["return"].min, found.families[name]["return"].max) for name in values}
    image = figures.plot_seeds(values, intervals, found.baselines, _palette(found), folder / "returns.png",
                               "return per episode")
    return Picture(title, "Closed loop, the same starts and goals for all. A point is a seed; the interval is "
                   "bootstrapped over seeds and episodes.", image)


def _palette(found: GroupResult) -> dict[str, str]:
    return dict(zip(found.families, colours(len(found.families)), strict=True))


# -- the tables


def tables(group: GroupResult, title: str) -> list[Table]:
    """All tables of a group: families at a glance, and every run."""
    glance = []
    for heading, text, key in GLANCE:
        row = [cell(family.get(key)) for family in group.families.values()]
        if any(value is not None for value in row):
            glance.append((heading, text, *row, _beside(group, key)))
    runs = []
    for name, run in group.runs.items():
        control = run.control
        scores = (None, None, None) if control is None else (control.return_mean, control.return_ci95,
                                                             control.success_rate)
        problems = run.warnings if run.failure is None else [f"failed: {run.failure}", *run.warnings]
        runs.append((name, run.steps, *scores, "; ".join(problems)))
    return [Table(f"{title}at a glance", ("", "measure", *group.families, "data, or others"), glance, NOTE),
            Table(f"{title}runs", ("run", "steps", "return", "95 % interval over episodes", "success",
                                   "failures and warnings"), runs)]


def cell(number: Spread | None) -> str | None:
    """A number as "mean [minimum, maximum]"."""
    if number is None:
        return None
    low, mean, high = (show(value) for value in (number.min, number.mean, number.max))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _beside(group: GroupResult, key: str) -> str | None:
    """What stands beside the families: the data measured against themselves, or the returns of other agents."""
    if key == "return":
        return ", ".join(f"{name} {show(mean)}" for name, mean in group.baselines.items()) or None
    if key.startswith(("quality", "modes")):
        return cell(group.data.get(key.rsplit(".", 1)[-1]))
    return None
