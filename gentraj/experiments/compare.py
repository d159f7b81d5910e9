"""`gentraj compare`: trained runs beside each other on a page: their returns in the same episodes, the quality of their
samples, and what their decisions cost."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gymnasium.spaces import Box
from torch.utils.benchmark import Timer

from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.making import environment_factory

from ..config import to_json, write_json
from ..files import short_names
from ..plots.comparison import plot_frontier
from ..plots.page import markdown_table, show
from ..runs.judge.evaluation import Acting, score_run
from ..runs.judge.measures import choose_windows, conditions, measure_run
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun
from ..runs.kinds.presets import PRESETS
from ..runs.kinds.run import Run, environment_of
from ..runs.show.card import parameters_trained
from ..runs.show.floor import draw_samples
from ..training.log import read_metrics
from ..training.loop import cpu_resources
from ..trajectory import Batch, SamplingOptions, SupportsLogProb
from .cards import DataResult, SeedResult
from .page import Row, ScoreTable, over_runs, picture, write_parts
from .statistics import Estimate

BATCHES = (1, 64)  # plans that are sampled at a time while they are timed
LIKELIHOODS = 16  # number of windows; a likelihood costs hundreds of network calls
SECONDS_TIMED = 0.5  # for which a call is repeated while it is timed
DECISIONS = 50  # that are timed
WINDOWS_SHOWN = 64
HEAD = """# Runs compared

Returns are of the same {episodes} episodes for all runs, ± half the width of their 95 % interval (Student's); a single
episode has none. Runs that differ only in their seed are one row or column, with the mean over them and, in brackets,
their range. "{data}" is one half of the data measured against the other, which a perfect model would score. Decisions
are for one environment, in one thread."""
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
    "parameters": "parameters trained", "train_steps": "training steps", "train_seconds": "seconds of the training"}


@dataclass(frozen=True)
class Entrant:
    """A run that is compared, or several that differ only in their seed."""

    label: str
    runs: tuple[Run, ...]
    steps: int | None
    """The number of sampling steps with which they act; None for their own."""


@dataclass(frozen=True)
class Comparison:
    """What was found out about runs."""

    entrants: list[Entrant]
    table: ScoreTable | None
    """Their returns; None where no episodes were asked for."""
    numbers: dict[str, list[dict[str, float]]]
    """What was measured of each run of an entrant, by the entrant's label and the name of the number."""

    def spread(self, label: str, key: str) -> list[float]:
        """A number of all runs of an entrant, as far as they have it."""
        return [numbers[key] for numbers in self.numbers[label] if key in numbers]


def entrants(runs: Sequence[Run | Path | str], device: torch.device | None = None) -> list[Entrant]:
    """Loads runs, each of which is a run, its folder, or DIR@STEPS for another number of sampling steps; those that
    differ only in their seed are one entrant. Raises ValueError for no runs, for a preset, for a run that is given
    twice, and for 0 steps."""
    if not runs:
        raise ValueError("no runs were given; give at least one")
    presets = [each for each in runs if each in PRESETS and not Path(str(each)).exists()]
    if presets:
        raise ValueError(f"{presets[0]} is a preset and no run; compare what was trained by it, or let `gentraj sweep "
                         f"{presets[0]}` train variants of it and compare them")
    loaded: list[tuple[Run, int | None]] = []
    for each in runs:
        if isinstance(each, Run):
            loaded.append((each, None))
        else:
            folder, steps = folder_and_steps(str(each))
            loaded.append((load(folder, device=device), steps))
    groups: list[tuple[list[Run], int | None]] = []
    for run, steps in loaded:
        group = next((group for group, of_group in groups if of_group == steps and is_repetition(run, group)), None)
        if group is None:
            groups.append(([run], steps))
        else:
            group.append(run)
    folders = list(dict.fromkeys(run.folder.absolute() for run, _ in loaded))
    names = dict(zip(folders, short_names(folders), strict=True))
    found: dict[str, Entrant] = {}
    for group, steps in groups:
        own = [names[run.folder.absolute()] for run in group]
        suffix = "" if steps is None else f"@{steps}"
        label = common_name(own) + suffix
        if label in found:
            label = own[0] + suffix
        if label in found:
            raise ValueError(f"{label} was given twice; give each run once, or with other steps, as in DIR@5")
        found[label] = Entrant(label, tuple(group), steps)
    return list(found.values())


def is_repetition(run: Run, group: Sequence[Run]) -> bool:
    """Whether a run differs from those of a group in its seed, and in nothing else."""
    def settings(each: Run) -> object:
        return each.step, each.summary, replace(each.config, training=replace(each.config.training, seed=0))

    seeds = [each.config.training.seed for each in group]
    return run.config.training.seed not in seeds and settings(run) == settings(group[0])


def common_name(names: Sequence[str]) -> str:
    """What the names of repetitions have in common, without "seed" at its end: iql of iql-seed-0 and iql-seed-1."""
    letters = itertools.takewhile(lambda several: len(set(several)) == 1, zip(*names, strict=False))
    common = "".join(first for first, *_ in letters)
    if len(names) > 1:
        common = re.sub(r"[-_. /]*(seed)?[-_=]*\d*$", "", common)
    return common or names[0]


def folder_and_steps(text: str) -> tuple[str, int | None]:
    """The folder of DIR or DIR@STEPS, and the number of sampling steps; None for the run's own. A text that names an
    existing folder is DIR, even with an @ in it. Raises ValueError for 0 steps."""
    found = re.fullmatch(r"(.+)@(\d+)", text)
    if found is None or Path(text).exists():
        return text, None
    steps = int(found[2])
    if not steps:
        raise ValueError(f"{text} has {steps} sampling steps; give at least 1, or the run alone for its own number")
    return found[1], steps


def compare(*runs: Run | Path | str | Sequence[Run | Path | str], env: str | None = None, episodes: int = 50,
            seed: int = 0, device: torch.device | None = None, progress: bool = True) -> ScoreTable:
    """The returns of runs, each loaded or the folder of one, in the same episodes of one environment; best first.

        print(gentraj.compare("runs/iql", "runs/swift", env="Hopper-v5"))

    The table has the mean of each run with its 95 % interval, and how far it is above the first run, paired by episode.
    Runs that differ only in their seed share a row. The environment is by default that of the data. Raises ValueError
    for no runs, for runs whose environments differ, and what `evaluate` raises.
    """
    several: list[Run | Path | str] = []
    for given in runs:
        if isinstance(given, Run | Path | str):
            several.append(given)
        elif isinstance(given, Sequence):
            several += given
        else:
            raise TypeError(f"a {type(given).__name__} was given to be compared; runs or their folders are expected")
    return returns(entrants(several, device), env, episodes, seed, progress)


def acting_with(run: Run, steps: int | None) -> Acting:
    """How the agent of a run acts with this number of sampling steps, which is among the settings of a planner."""
    if isinstance(run, PlannerRun) and steps is not None:
        return Acting(replace(run.planning, steps=steps))
    return Acting(options=SamplingOptions(steps=steps))


def returns(entrants: Sequence[Entrant], env_id: str | None, episodes: int, seed: int, progress: bool) -> ScoreTable:
    """The table of `compare`."""
    config = EvaluationConfig(episodes=episodes, seed=seed, baselines=False)
    factories = [environment_factory(environment_of(each.runs[0], env_id)) for each in entrants]
    if len({factory.spec_json for factory in factories}) > 1:
        raise ValueError(f"the runs have different environments or arguments of one ("
                         f"{', '.join(factory.env_id for factory in factories)}); give runs of the same, or name it by "
                         "env=")
    name = factories[0].env_id
    rows = []
    for each in entrants:
        behaviour = None
        scores = []
        for i, run in enumerate(each.runs):
            found = score_run(run, config, env_id, acting_with(run, each.steps), progress=progress)
            behaviour = (found["behaviour"] or {}).get("return_mean")
            scores.append(SeedResult(i, found["agent"], run.step, found["sampling"], tuple(found["returns"]), 0.0, {},
                                     decision_ms=found["latency_ms_p50"]))
        rows.append(Row(each.label, tuple(range(len(scores))), {name: DataResult("", behaviour, tuple(scores))}))
    return ScoreTable(name, "return_mean", "random-goal", episodes, (name,), rows, entrants[0].label).best_first()


def compare_runs(runs: Sequence[str], env_id: str | None, episodes: int, num: int,
                 device: torch.device) -> Comparison:
    """Evaluates and measures runs, as `gentraj compare` does, in one thread. Without episodes they have no returns."""
    with cpu_resources(1):
        found = entrants(runs, device)
        table = None
        if episodes:
            table = returns(found, env_id, episodes, 0, progress=True)
        return Comparison(found, table, {each.label: [measure(run, each.steps, num) for run in each.runs]
                                         for each in found})


# -- what is measured of a run


def measure(run: Run, steps: int | None, num: int) -> dict[str, float]:
    """What a decision and the training have cost, and of a planner how good its samples are, by the column and the name
    in `measure_run`, and how many plans a second are sampled: the median of repeated calls."""
    numbers = decision_cost(run, steps)
    numbers["parameters"] = sum(map(parameters_trained, run.components.values()))
    numbers["train_steps"] = run.step
    seconds = sum(row.get("seconds", 0.0) for row in read_metrics(run.folder))
    if seconds:
        numbers["train_seconds"] = seconds
    if not isinstance(run, PlannerRun):
        return numbers
    sampling = SamplingOptions(steps=steps or run.planning.steps)
    for column, measures in measure_run(run, num=num, steps=sampling.steps)["measures"].items():
        numbers |= {f"{column}.{name}": value for name, value in measures.items() if value is not None}
    windows = whole_windows(run)
    for batch in BATCHES:
        some = windows.take(torch.arange(batch) % len(windows.x_BHD))
        [*_, known] = conditions(run, some).values()
        call = partial(run.model.sample, known.to(run.device), options=sampling)
        timed = Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=SECONDS_TIMED)
        numbers[f"plans_per_second.{batch}"] = batch / timed.median
    if steps is None and isinstance(run.model, SupportsLogProb):  # which depends on no sampling steps
        numbers["log_prob_per_entry"] = likelihood(run, run.model, windows.take(slice(LIKELIHOODS)))
    return numbers


def likelihood(run: PlannerRun, model: SupportsLogProb, windows: Batch) -> float:
    """The mean log-likelihood of windows given their first observation and context, in nats per unknown entry in
    environment units."""
    start = conditions(run, windows)["start"].to(run.device)
    log_prob_B = model.log_prob(windows.x_BHD.to(run.device), start)
    return (log_prob_B / (~start.mask_BHD).sum((1, 2))).mean().item()


def whole_windows(run: PlannerRun) -> Batch:
    """The windows that the run keeps which lie whole in an episode, in random order."""
    windows, _ = choose_windows(run, None, len(run.reference.x_BHD), 0)
    return windows


def decision_cost(run: Run, steps: int | None) -> dict[str, float]:
    """The mean number of network calls and the median milliseconds of CPU time, which other processes change least, of
    a decision for one environment, which begins an episode."""
    ones = np.ones(run.data.act_dim, np.float32)  # what bounds the actions does not change what they cost
    acting = acting_with(run, steps)
    agent = run.agent(Box(-ones, ones), acting.settings, options=acting.options)
    calls, seconds = np.zeros((2, DECISIONS + 1))
    for n in range(DECISIONS + 1):
        i = n % len(run.reference.x_BHD)
        window = run.reference.take(slice(i, i + 1))
        obs_BO = window.x_BHD[:, 0, : run.data.obs_dim]
        goal_BG = run.example_goal(window, obs_BO)
        agent.reset([n])
        before = agent.network_calls or 0
        began = time.thread_time()
        agent.act(obs_BO, goal_BG)
        seconds[n] = time.thread_time() - began
        calls[n] = (agent.network_calls or 0) - before
    return {"calls": float(calls[1:].mean()), "cpu_ms": float(1e3 * np.median(seconds[1:]))}  # the first one warms up


# -- the page


def write_page(found: Comparison, out: Path) -> Path:
    """Writes comparison.json, the figures, and the page with them and the tables, whose path it returns."""
    path, episodes = out / "comparison.md", 0
    scores: dict[str, tuple[SeedResult, ...]] = {}
    parts: list[str] = []
    if found.table is not None:
        table, episodes = found.table, found.table.episodes
        scores = {row.label: row.results[table.name].seeds for row in table.rows}
        parts = [f"## {table.name}", str(table), *costs(table, found, path)]
        if any(len(each.runs) > 1 for each in found.entrants):
            parts += over_runs(table)
    write_json(out / "comparison.json", {"runs": {
        each.label: {"folders": [str(run.folder) for run in each.runs], "kind": each.runs[0].summary,
                     "steps": each.steps, "scores": to_json(scores.get(each.label)),
                     "numbers": found.numbers[each.label]}
        for each in found.entrants}})
    return write_parts(path, [HEAD.format(data=DATA_COLUMN, episodes=episodes), *parts, "## What was measured",
                              measured(found), *samples(found.entrants, path)])


def measured(found: Comparison) -> str:
    """Every measure of every entrant, and of the data, in Markdown."""
    labels = [each.label for each in found.entrants]
    rows: list[tuple[object, ...]] = [("kind", *(each.runs[0].summary for each in found.entrants), "")]
    for key, text in MEASURES.items():
        cells = [spread(found.spread(label, key)) for label in labels]
        of_data = f"data.{key.removeprefix('start.')}"
        if any(cell is not None for cell in cells):
            rows.append((text, *cells, spread([value for label in labels for value in found.spread(label, of_data)])))
    return markdown_table(("", *labels, DATA_COLUMN), rows)


def spread(values: Sequence[float]) -> str | None:
    """Numbers as "mean [minimum, maximum]"; None without any."""
    if not values:
        return None
    low, high = show(min(values)), show(max(values))
    if low == high:
        return low
    return f"{show(float(np.mean(values)))} [{low}, {high}]"


def costs(table: ScoreTable, found: Comparison, path: Path) -> Iterator[str]:
    """Yields the frontier of at least two entrants."""
    points = {row.label: (float(np.mean(found.spread(row.label, "cpu_ms"))), table.averages[row.label])
              for row in table.rows}
    if len(points) > 1:
        yield picture("What a decision costs and what it is worth", path, "frontier",
                      lambda file: plot_frontier(points, frontier(points), file, "return of an episode"))
        yield "No other point beats those of the line in both."


def frontier(points: Mapping[str, tuple[float, Estimate]]) -> set[str]:
    """The names of the points (cost, worth) that no other one beats, which is as cheap and worth as much, and better in
    one of them."""
    def beats(one: str, other: str) -> bool:
        cost, worth = points[one]
        others_cost, others_worth = points[other]
        better = cost < others_cost or worth.mean > others_worth.mean
        return better and cost <= others_cost and worth.mean >= others_worth.mean

    return {name for name in points if not any(beats(other, name) for other in points)}


def samples(entrants: Sequence[Entrant], path: Path) -> Iterator[str]:
    """Yields a picture of samples of every planner that is conditioned as the first one, from the same starts and
    goals."""
    planners = [(each, run) for each in entrants for run in each.runs[:1] if isinstance(run, PlannerRun)]
    if not planners:
        return
    _, first = planners[0]
    spec, goal_dims = first.model.spec, first.planning.goal_dims
    windows = whole_windows(first).take(slice(WINDOWS_SHOWN))
    drawn = {}
    for each, run in planners:
        if (run.model.spec, run.context, run.planning.goal_dims) == (spec, first.context, goal_dims):
            [*_, known] = conditions(run, windows).values()
            options = SamplingOptions(steps=each.steps or run.planning.steps)
            x_NHD = run.model.sample(known.to(run.device), seed=0, options=options)[:, 0]
            drawn[each.label] = x_NHD.cpu().numpy()
    yield picture("Samples of every planner", path, "samples", lambda file: draw_samples(
        first.data, spec, drawn, windows.x_BHD.numpy(), file))
    yield "Samples from the starts (and to the goals, if there are any) of the data."
