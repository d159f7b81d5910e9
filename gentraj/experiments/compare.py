"""`gentraj compare`: families of models, or policies, on the same data, trained for the same steps or time; or
existing runs.

tasks -> engine -> a `RunResult` of each run -> a `Group` of the runs in one environment -> comparison.json and the page
of `compare_page`.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from gymnasium.spaces import Box
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.benchmark import Timer

from gentraj.envs.evaluation.scores import score_behaviour
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.making import environment_factory, recorded_factory, try_making

from ..config import check_known, settings, to_json, write_json
from ..data.episodes import Episodes, episodes_hash
from ..data.sources import resolve_paths
from ..device import pick_device
from ..families import FAMILIES
from ..families import family as family_of
from ..files import check_folder, short_names
from ..progress import one_line, say
from ..runs.judge.evaluation import evaluate_run
from ..runs.judge.measures import choose_windows, conditions, measure_run
from ..runs.kinds.folder import RunFolder, run_class
from ..runs.kinds.loading import load
from ..runs.kinds.planner_run import PlannerRun, PlannerRunConfig
from ..runs.kinds.presets import PRESETS, with_model
from ..runs.kinds.run import DataFacts, Run, RunConfig, environment_of
from ..runs.kinds.world_run import WorldModelRunConfig
from ..runs.learn.training import read_datasets
from ..runs.show.card import parameters_trained
from ..training.checkpoint import saved_step
from ..training.log import read_metrics
from ..training.loop import cpu_resources
from ..trajectory import Batch, SamplingOptions, SupportsLogProb
from . import engine
from .cards import DataResult, SeedResult
from .engine import Measurement, RunTask
from .page import Row, ScoreTable
from .pools import LocalProcesses, Pool
from .reproduce import acting_with, score_of, seed_result
from .statistics import number

FOR_TRAINING = ("families", "dataset", "env_id", "steps", "minutes", "seeds")  # settings of presets that are trained
BATCHES = (1, 64)  # plans that are sampled at a time while they are timed
LIKELIHOODS = 16  # number of windows; a likelihood costs hundreds of network calls
SECONDS_TIMED = 0.5  # for which a call is repeated while it is timed
DECISIONS = 50  # that are timed
PACE_STEPS = 60  # of the training that is timed to know how many steps fit into --minutes
PACE_BLOCK = 10  # steps that are timed together, as a discriminator need not learn in each of them

Cell = tuple[str, str]  # group and family


@settings
class CompareConfig:
    """Which families of models or which existing runs are compared, and how."""

    presets: tuple[str, ...] = ()
    """Presets, as in `gentraj train`. Of planners, all families share the data, the planner and the training of a
    preset; where one is a policy, the presets are compared with each other."""
    runs: tuple[str, ...] = ()
    """Existing run folders to compare, instead of presets to train, such as a teacher and its students. DIR@STEPS is a
    run with another number of sampling steps."""
    families: str = ""
    """Families of models to compare in planners, separated by commas; they are the values of `gentraj train --model`,
    and by default all of them."""
    dataset: str = ""
    """The dataset, as in `gentraj train`; by default the preset's."""
    env_id: str | None = None
    """The environment, if the dataset does not name it: a Gymnasium id or a task name."""
    steps: PositiveInt | None = None
    """Number of steps of each training; by default the preset's."""
    minutes: PositiveFloat | None = None
    """Minutes of each training, in place of --steps: each family makes as many steps as it makes in this time when
    nothing runs beside it, which a short training measures first."""
    seeds: PositiveInt = 3
    """Number of trainings of each family or policy, with the seeds 0, 1, 2 and so on."""
    episodes: NonNegativeInt = 50
    """Number of episodes in which each run is evaluated; 0 leaves the returns out."""
    num: Annotated[int, Ge(8)] = 512
    """Number of trajectories that are sampled to measure the quality of samples, as in `gentraj measure`."""
    out: Path = Path("runs/comparison")
    """Folder that the runs, comparison.json and comparison.md are written to."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""

    def __post_init__(self) -> None:
        if bool(self.presets) == bool(self.runs):
            raise ValueError("give presets to train, or --runs DIR... to compare existing runs; see gentraj compare "
                             "--help")
        given = [name for name in FOR_TRAINING if getattr(self, name) != getattr(CompareConfig, name)]
        if self.runs and given:
            raise ValueError(f"--{given[0]} is for presets that are trained, and --runs names existing runs; leave one "
                             "of them out")
        if self.steps is not None and self.minutes is not None:
            raise ValueError("--steps and --minutes both say how long to train; give one of them")
        check_folder(self.out, "--out")


# -- what is measured of a run


@settings
class RunNumbers:
    """Numbers that were measured of a run, by their names."""

    values: dict[str, float]


def samples(run: Run, num: int, steps: int | None) -> RunNumbers:
    """How good the samples of a planner are, by the column and the name in `measure_run`, and the log-likelihood of
    windows given their first observation and context, in nats per unknown entry in environment units. The latter
    depends on no number of sampling steps, and is left out where one is given."""
    if not isinstance(run, PlannerRun):
        return RunNumbers({})
    columns = measure_run(run, num=num, steps=steps or run.planning.steps)["measures"]
    found = {f"{column}.{name}": value for column, measures in columns.items() for name, value in measures.items()
             if value is not None}
    if steps is None and isinstance(run.model, SupportsLogProb):
        windows = whole_windows(run).take(slice(LIKELIHOODS))
        start = conditions(run, windows)["start"].to(run.device)
        log_prob_B = run.model.log_prob(windows.x_BHD.to(run.device), start)
        found["log_prob_per_entry"] = (log_prob_B / (~start.mask_BHD).sum((1, 2))).mean().item()
    return RunNumbers(found)


def whole_windows(run: PlannerRun) -> Batch:
    """The windows that the run keeps which lie whole in an episode, in random order."""
    windows, _ = choose_windows(run, None, len(run.reference.x_BHD), 0)
    return windows


def speed(run: Run, steps: int | None) -> RunNumbers:
    """What a decision for one environment costs, and how many plans a second are sampled: the median over
    `SECONDS_TIMED` of repeated calls."""
    found = decision_cost(run, steps) | {"parameters": sum(map(parameters_trained, run.components.values()))}
    if isinstance(run, PlannerRun):
        windows = whole_windows(run)
        for batch in BATCHES:
            some = windows.take(torch.arange(batch) % len(windows.x_BHD))
            [*_, known] = conditions(run, some).values()
            options = SamplingOptions(steps=steps or run.planning.steps)
            call = partial(run.model.sample, known.to(run.device), options=options)
            timed = Timer("call()", globals={"call": call}).blocked_autorange(min_run_time=SECONDS_TIMED)
            found[f"plans_per_second.{batch}"] = batch / timed.median
    return RunNumbers(found)


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
        agent.reset(seeds_B=[n])
        before = agent.network_calls or 0
        began = time.thread_time()
        agent.act(obs_BO, goal_BG)
        seconds[n] = time.thread_time() - began
        calls[n] = (agent.network_calls or 0) - before
    return {"calls": float(calls[1:].mean()), "cpu_ms": float(1e3 * np.median(seconds[1:]))}  # the first one warms up


def measures(config: CompareConfig, scored: bool, steps: int | None = None,
             step: int | None = None) -> tuple[Measurement[Any], ...]:
    """What is measured of a run in parallel with others: its return if it is `scored`, and its samples. `steps` are its
    sampling steps, by default its own, and `step` is the training step of an existing run."""
    quality = Measurement("samples", partial(samples, num=config.num, steps=steps), RunNumbers,
                      {"num": config.num, "steps": steps, "step": step})
    if not scored:
        return (quality,)
    score = score_of("score", config.episodes, "random-goal", "return_mean", steps=steps, step=step)
    return score, quality


def can_be_scored(config: CompareConfig, env: str | None, name: str) -> bool:
    """Whether runs have returns; says why they have none."""
    if not config.episodes:
        return False
    try:
        if env is None:
            raise ValueError("the data do not say which environment they come from")
        try_making(env)
    except Exception as error:  # an environment may raise anything
        say(f"{name}: there are no returns: {one_line(error)}")
        return False
    return True


# -- presets that are trained


def planned(config: CompareConfig) -> dict[Cell, RunConfig]:
    """The settings of every preset with every family, or of every preset in the group of their data where one is a
    policy. Raises ValueError for unknown names, for families of policies, and for a world model."""
    check_known(config.presets, PRESETS, "preset")
    chosen = {name: trained_settings(config, name) for name in config.presets}
    planners = {name: base for name, base in chosen.items() if isinstance(base, PlannerRunConfig)}
    if len(planners) == len(chosen):
        families = [name.strip() for name in (config.families or ",".join(FAMILIES)).split(",")]
        check_known(families, FAMILIES, "family")
        return {(name, family): base if family_of(base.model) == family else with_model(base, FAMILIES[family])
                for name, base in planners.items() for family in families}
    if config.families:
        policy = next(name for name in chosen if name not in planners)
        raise ValueError(f"--families are compared in planners, and {policy} is a policy; leave --families out to "
                         "compare the presets with each other")
    return {(_file_name(Path(base.dataset).name), name): base for name, base in chosen.items()}


def trained_settings(config: CompareConfig, name: str) -> RunConfig:
    """The settings of a preset with the data and the training of the comparison."""
    base = PRESETS[name]
    if isinstance(base, WorldModelRunConfig):
        raise ValueError(f"{name} is a {run_class(base).NAME}; planners, whose families of models are compared, or "
                         "policies are expected; gentraj compare --runs compares trained runs of any kind")
    dataset = config.dataset or base.dataset
    if not dataset:
        raise ValueError(f"preset '{name}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    training = replace(base.training, threads=1, steps=config.steps or base.training.steps)
    return replace(base, dataset=resolve_paths(dataset, Path()), env_id=config.env_id or base.env_id,
                   training=training)


def to_train(config: CompareConfig, pool: Pool) -> list[RunTask]:
    """A task for every cell and seed."""
    configs = planned(config)
    hashes: dict[Cell, str] = {}
    read: dict[tuple[str, bool, bool], tuple[Episodes, str]] = {}
    measured: dict[str, tuple[Measurement[Any], ...]] = {}
    for cell, own in configs.items():
        group, _ = cell
        what = own.dataset, own.stitch, own.learns_from_synthetic
        if what not in read:
            data, _ = read_datasets(own)
            read[what] = data, episodes_hash(data)
        episodes, hashes[cell] = read[what]
        run_class(own).resolve(own, episodes)  # raises for settings that do not suit the data
        if group not in measured:
            measured[group] = measures(config, can_be_scored(config, own.env_id or episodes.env, group))
    if config.minutes is not None:
        for cell, own in configs.items():
            seconds = seconds_per_step(cell, own, hashes[cell], config, pool)
            steps = max(1, round(60 * config.minutes / seconds))
            configs[cell] = replace(own, training=replace(own.training, steps=steps))
    tasks = []
    for seed in range(config.seeds):  # outermost, so that a comparison that is stopped early has every family
        for cell, own in configs.items():
            group, family = cell
            name = f"{group}/{family}-seed-{seed}"
            seeded = replace(own, training=replace(own.training, seed=seed))
            tasks.append(RunTask(cell, name, config.out / name, seeded, hashes[cell], measured[group]))
    return tasks


def seconds_per_step(cell: Cell, planner: RunConfig, sha256: str, config: CompareConfig, pool: Pool) -> float:
    """The pace of a family, which a short training in the pool measures once, while nothing runs beside it. Raises
    RuntimeError if it fails."""
    name = f"{cell[0]}/{cell[1]}-pace"
    pace = Measurement("pace", median_pace, RunNumbers, {})
    short = replace(planner, training=replace(planner.training, steps=PACE_STEPS, log_every=PACE_BLOCK))
    task = RunTask(cell, name, config.out / name, short, sha256, (pace,))
    failures = engine.run([task], pool, config.device, lambda _: "done")
    found = task.result(pace)
    if found is None:
        raise RuntimeError(f"{name} failed: {failures[name]}")
    return found.values["seconds_per_step"]


def median_pace(run: Run) -> RunNumbers:
    """The seconds of a training step: the median over the rows of the log but the first, in which caches fill."""
    _, *rows = read_metrics(run.folder)
    seconds = statistics.median(row["seconds"] for row in rows)
    return RunNumbers({"seconds_per_step": seconds / run.config.training.log_every})


# -- existing runs


def entrant(text: str) -> tuple[Path, int | None]:
    """The folder of DIR or DIR@STEPS, and the number of sampling steps; None for the run's own. A text that names an
    existing folder is DIR, even with an @ in it. Raises ValueError for 0 steps."""
    found = re.fullmatch(r"(.+)@(\d+)", text)
    if found is None or Path(text).exists():
        return Path(text), None
    steps = int(found[2])
    if not steps:
        raise ValueError(f"{text} has {steps} sampling steps; give at least 1, or the run alone for its own number")
    return Path(found[1]), steps


def to_measure(config: CompareConfig) -> list[RunTask]:
    """A task for every existing run.

    Runs of a group have the same environment, or where they have none, the same data. Runs that differ only in their
    seed are one family, which is called like the first of them.
    """
    groups: dict[str, tuple[str, bool]] = {}
    families: dict[str, str] = {}
    tasks = []
    for text in dict.fromkeys(config.runs):
        folder, steps = entrant(text)
        run = load(folder)
        key = environment_name(run.data) or run.dataset_hash
        if key not in groups:
            name = _file_name(json.loads(key)["id"] if run.data.env else Path(run.config.dataset).name)
            name = f"{name}-{len(groups) + 1}" if groups else name
            groups[key] = name, can_be_scored(config, run.data.env, name)
        group, scored = groups[key]
        same = {name: value for name, value in to_json(run.config).items() if name not in ("dataset", "training")}
        training = run.config.training
        alike = json.dumps([group, run.dataset_hash, steps, training.steps, same])
        if any(task.seed == training.seed and task.cell == (group, families.get(alike)) for task in tasks):
            alike = text  # the same seed once more
        own = measures(config, scored, steps, run.step)
        place = config.out / group / _file_name(Path(text).absolute().name)
        cell = group, families.setdefault(alike, text)
        tasks.append(RunTask(cell, text, place, run.config, run.dataset_hash, own, run.folder))
    return tasks


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)


def environment_name(data: DataFacts) -> str | None:
    """The environment of a run, in the same words for all runs that have it."""
    factory = recorded_factory(data.env)
    return data.env if factory is None else factory.spec_json


# -- the results


@dataclass(frozen=True)
class RunResult:
    """What was measured of a run; a run that failed has no score and no numbers."""

    name: str
    family: str
    seed: int
    folder: str
    steps: int | None
    """The number of sampling steps, where it is not the run's own."""
    failure: str | None = None
    score: SeedResult | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    """The `samples` and the `speed`, and the "train_steps" and "train_seconds" of the training."""


@dataclass(frozen=True)
class Group:
    """The runs that are compared with each other."""

    name: str
    behaviour: float | None
    """The return of the data's own episodes, if they are whole episodes of the environment."""
    runs: list[RunResult]

    @property
    def families(self) -> dict[str, list[RunResult]]:
        """The runs of each family."""
        found: dict[str, list[RunResult]] = {}
        for run in self.runs:
            found.setdefault(run.family, []).append(run)
        return found

    def spread(self, family: str, key: str) -> list[float]:
        """A number of each run of a family that has it."""
        return [run.numbers[key] for run in self.families[family] if key in run.numbers]

    def table(self) -> ScoreTable | None:
        """The returns of the families, which are compared with the first one; None if there are none."""
        rows = []
        for family, runs in self.families.items():
            scores = tuple(run.score for run in runs if run.score is not None)
            if scores:
                result = DataResult("", self.behaviour, scores)
                rows.append(Row(family, tuple(sorted(run.seed for run in runs)), {self.name: result}))
        if not rows:
            return None
        episodes = len(rows[0].results[self.name].seeds[0].scores)
        return ScoreTable(self.name, "return_mean", "random-goal", episodes, (self.name,), rows,
                          next(iter(self.families))).best_first()


def compare_families(config: CompareConfig, pool: Pool | None = None) -> list[Group]:
    """Trains and measures in the pool, by default processes of this machine, what is not done yet; writes
    comparison.json and returns its groups.

    Everything is measured with one thread, as in the processes that train. Raises RuntimeError if all runs failed.
    """
    pool = pool or LocalProcesses()
    with cpu_resources(1):
        tasks = to_measure(config) if config.runs else to_train(config, pool)
        failures = engine.run(tasks, pool, config.device, lambda some: _outcome(some[0]))
        if len(failures) == len(tasks):
            raise RuntimeError(f"all {len(tasks)} runs failed; the first: {failures[tasks[0].name]}")
        of_group: dict[str, list[RunTask]] = {}
        for task in tasks:
            of_group.setdefault(task.cell[0], []).append(task)
        groups = [Group(name, _behaviour(own, failures),
                        [run_result(task, failures.get(task.name), config.device) for task in own])
                  for name, own in of_group.items()]
    write_json(config.out / "comparison.json", {"groups": [to_json(group) for group in groups]})
    return groups


def compare(runs: Sequence[Run | Path | str], env_id: str | None = None, *, episodes: int = 50, seed: int = 0,
            device: torch.device | None = None, progress: bool = True) -> ScoreTable:
    """The returns of runs, each loaded or the folder of one, in the same episodes of one environment; best first.

        print(gentraj.compare(["runs/iql", "runs/swift"], "Hopper-v5"))

    The table has the mean of each run with its 95 % interval, and how far it is above the first run, paired by episode.
    The environment is by default that of the data. Raises ValueError for no runs, for runs whose environments differ,
    and what `evaluate_run` raises.
    """
    config = EvaluationConfig(env_id=env_id, episodes=episodes, seed=seed, baselines=False)
    loaded = [run if isinstance(run, Run) else load(run, device=device) for run in runs]
    labels = short_names([run.folder for run in loaded])
    factories = [environment_factory(environment_of(run, env_id)) for run in loaded]
    if not labels:
        raise ValueError("no runs were given; give at least one")
    if len({factory.spec_json for factory in factories}) > 1:
        raise ValueError(f"the runs have different environments or arguments of one ("
                         f"{', '.join(factory.env_id for factory in factories)}); give runs of the same, or name it by "
                         "env_id")
    name = factories[0].env_id
    rows = []
    for label, run in zip(labels, loaded, strict=True):
        found, _ = evaluate_run(run, config, progress=progress)
        data = found["behaviour"] or {}
        score = SeedResult(seed, found["agent"], run.step, found["sampling"], tuple(found["returns"]), 0.0, {},
                           decision_ms=found["latency_ms_p50"])
        rows.append(Row(label, (seed,), {name: DataResult("", data.get("return_mean"), (score,))}))
    return ScoreTable(name, "return_mean", "random-goal", episodes, (name,), rows, labels[0]).best_first()


def _outcome(task: RunTask) -> str:
    score = seed_result(task) if task.measures[0].result is SeedResult else None
    return f"done, {saved_step(task.run)} steps" + ("" if score is None else f", return {number(score.mean)}")


def _behaviour(tasks: Sequence[RunTask], failures: Mapping[str, str]) -> float | None:
    """The return of the data's own episodes; None where it is not defined, and where all runs have failed."""
    for task in tasks:
        if task.name not in failures:
            data = RunFolder(task.run).read().data
            if data.env is None:
                return None
            scores, _ = score_behaviour(data.returns, data.recorded or data.env, environment_factory(data.env))
            return None if scores is None else scores["return_mean"]
    return None


def run_result(task: RunTask, failure: str | None, device: str | None) -> RunResult:
    """The result of a run, whose speed is measured in this process while nothing runs in parallel."""
    *scores, quality = task.measures
    found = RunResult(task.name, task.cell[1], task.seed, str(task.run), quality.depends_on["steps"], failure)
    if failure is not None:
        return found
    timed = Measurement("speed", partial(speed, steps=found.steps), RunNumbers,
                        {**quality.depends_on, "device": device})
    fast = task.measured(timed, lambda: load(task.run, device=pick_device(device)))
    trained = {"train_steps": float(saved_step(task.run))}
    seconds = sum(row.get("seconds", 0.0) for row in read_metrics(task.run))
    if seconds:
        trained["train_seconds"] = seconds
    measured = task.measured(quality, lambda: load(task.run, device=pick_device(device)))
    return replace(found, score=seed_result(task) if scores else None,
                   numbers=measured.values | fast.values | trained)
