"""The page of `gentraj compare`: the returns in tables as on every page, what was measured of the models, samples under
the same conditions, and the frontier of cost and worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gentraj.envs.making import environment_factory
from gentraj.envs.tasks.maze import draw_maze

from ..device import pick_device
from ..plots.comparison import plot_frontier
from ..plots.figures import plot_samples_beside_data
from ..plots.page import markdown_table, show
from ..plots.style import Plane, in_plane
from ..runs.judge.measures import conditions
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun
from ..trajectory import SamplingOptions
from .compare import Group, RunResult, whole_windows
from .page import ScoreTable, over_runs, picture, table_parts, write_parts
from .statistics import Estimate

WINDOWS_SHOWN = 64
HEAD = """# Families of models compared

Means over seeds, with the minimum and maximum in brackets; of returns, the 95 % bootstrap interval over seeds and
episodes. "{data}" is one half of the data measured against the other, which a perfect model would score."""
DATA_COLUMN = "data"
MEASURES = {  # by the key of the number
    "start.two_sample_accuracy": "two-sample accuracy of the nearest neighbour (0.5 is best)",
    "start.precision": "precision (share)", "start.frechet_distance": "Frechet distance (std^2)",
    "start.row_error": "dynamics error between timesteps (env)",
    "start and goal.walls_share": "plans to a goal that enter a wall (share)",
    "start.recall": "recall (share)", "start.coverage": "coverage (share)",
    "log_prob_per_entry": "log-likelihood of data given the start, nats per entry",
    "calls": "network calls per decision", "cpu_ms": "CPU milliseconds per decision",
    "plans_per_second.1": "plans per second, one at a time",
    "plans_per_second.64": "plans per second, 64 at a time",
    "parameters": "parameters trained", "train_steps": "training steps",
    "train_seconds": "seconds of the training, in parallel with others"}


def write_page(groups: Sequence[Group], out: Path, device: str | None) -> Path:
    """Draws the figures, and writes the page with them and the tables; returns its path."""
    path, parts = out / "comparison.md", [HEAD.format(data=DATA_COLUMN)]
    for group in groups:
        table = group.table()
        parts += [f"## {group.name}"] if table is None else [*table_parts(table, path), *over_runs(table)]
        parts += ["### What was measured", measured(group), *samples(group, path, device)]
        if table is not None:
            parts += costs(group, table, path)
        failed = [(run.name, run.failure) for run in group.runs if run.failure is not None]
        if failed:
            parts += ["### Failed", markdown_table(("run", "why"), failed)]
    return write_parts(path, parts)


def measured(group: Group) -> str:
    """Every measure of every family, and of the data, in Markdown."""
    rows = []
    for key, text in MEASURES.items():
        families = [spread(group.spread(family, key)) for family in group.families]
        data = f"data.{key.partition('.')[2]}" if key.startswith("start") else ""
        if any(cell is not None for cell in families):
            rows.append((text, *families, spread([run.numbers[data] for run in group.runs if data in run.numbers])))
    return markdown_table(("", *group.families, DATA_COLUMN), rows)


def spread(values: Sequence[float]) -> str | None:
    """Numbers as "mean [minimum, maximum]"."""
    if not values:
        return None
    mean, bounds = show(float(np.mean(values))), [show(min(values)), show(max(values))]
    return mean if bounds[0] == bounds[1] else f"{mean} [{', '.join(bounds)}]"


@dataclass(frozen=True)
class FrontierPoint:
    """What a decision of a family costs and what it is worth."""

    name: str
    cpu_ms: float
    worth: Estimate

    def beats(self, other: FrontierPoint) -> bool:
        """Whether it is as cheap and worth as much as the other one, and better in one of them."""
        own, others = (self.cpu_ms, self.worth.mean), (other.cpu_ms, other.worth.mean)
        return own[0] <= others[0] and own[1] >= others[1] and own != others


def frontier(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The points that no other point beats."""
    return [point for point in points if not any(other.beats(point) for other in points)]


def costs(group: Group, table: ScoreTable, path: Path) -> Iterator[str]:
    """Yields the frontier of at least two families."""
    points = [FrontierPoint(row.label, float(np.mean(group.spread(row.label, "cpu_ms"))),
                            row.results[group.name].estimate) for row in table.rows]
    if len(points) > 1:
        best = {point.name for point in frontier(points)}
        shown = {point.name: (point.cpu_ms, point.worth) for point in points}
        yield picture("What a decision costs and what it is worth", path, f"{group.name}-frontier",
                      lambda file: plot_frontier(shown, best, file, "return of an episode"))
        yield "No other point beats those of the line in both. Decisions are for one environment, in one thread."


def samples(group: Group, path: Path, device: str | None) -> Iterator[str]:
    """Yields a picture of samples of every family of planners that is conditioned as the first one, from the same
    starts and goals."""
    planners: dict[str, tuple[RunResult, PlannerRun]] = {}
    for found in group.runs:
        if found.failure is None and found.family not in planners:
            run = load(Path(found.folder), device=pick_device(device))
            if isinstance(run, PlannerRun):
                planners[found.family] = found, run
    if not planners:
        return
    _, first = next(iter(planners.values()))
    spec, goal_dims = first.model.spec, first.planning.goal_dims
    dims = tuple(first.data.goal_dims or range(first.data.obs_dim))[:2]
    windows = whole_windows(first).take(slice(WINDOWS_SHOWN))
    drawn = {}
    for family, (found, run) in planners.items():
        if (run.model.spec, run.context, run.planning.goal_dims) == (spec, first.context, goal_dims):
            [*_, known] = conditions(run, windows).values()
            options = SamplingOptions(steps=found.steps or run.planning.steps)
            x_NHD = run.model.sample(known.to(run.device), seed=0, options=options)[:, 0]
            drawn[family] = in_plane(x_NHD.cpu().numpy(), dims, spec.times)
    maze = None if first.data.env is None else environment_factory(first.data.env).maze
    background = None if maze is None else partial(draw_maze, maze=maze)
    plane = Plane.of(dims, first.data.goal_dims, maze is not None)
    data = in_plane(windows.x_BHD.numpy(), dims, spec.times)
    yield picture("Samples of every family", path, f"{group.name}-samples", lambda file: plot_samples_beside_data(
        drawn, data, file, background, plane=plane))
    yield "Samples of the first seed of each family, from the starts (and to the goals, if there are any) of the data."
