"""`gentraj compare`: families of models on the same data, trained for the same time, or existing runs.

tasks -> engine -> a `RunResult` of each run -> a `GroupResult` of the runs with the same data -> a `Comparison`.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from gentraj.envs.evaluation.evaluate import EvaluationConfig, score_baselines
from gentraj.envs.evaluation.scores import DataReturns
from gentraj.envs.making import environment_factory, recorded_factory

from ..config import check_known, require, to_json, write_json
from ..data import Windows
from ..data.episodes import Episodes, episodes_hash
from ..device import pick_device
from ..families import FAMILIES
from ..families import family as family_of
from ..files import check_folder
from ..plots.page import show
from ..progress import say
from ..randomness import fold, generator
from ..runs.folder import RunFolder, load, run_class
from ..runs.planner import PlannerRun, PlannerRunConfig
from ..runs.presets import PRESETS, with_model
from ..runs.run import DataFacts, RunConfig
from ..runs.training import read_datasets, resolve_paths
from ..training.checkpoint import load as load_checkpoint
from ..training.checkpoint import saved_step
from ..training.log import read_metrics
from . import engine
from .compare_page import write_page
from .comparison import (
    Comparison,
    Control,
    GroupResult,
    Options,
    RunResult,
    Speed,
    frontier,
    measures_of,
    speed,
    summarize,
)
from .engine import Measure, Task, digest, kept, training_settings
from .groups import Group
from .jobs import LocalProcesses, Pool

DATA, BASELINES = "data.json", "baselines.json"
WINDOWS = 4096  # sampled from the data of a preset; existing runs bring their reference windows
FOR_TRAINING = ("families", "dataset", "budget", "steps", "seeds")  # settings of presets that are trained

Data = tuple[Episodes, list[DataReturns]]  # the episodes, and the returns of those of each dataset
Cell = tuple[str, str]  # group and family: the runs of a group have the same data, timesteps, contexts, environment


@dataclass(frozen=True)
class CompareConfig:
    """Which families of models or which existing runs are compared, and how."""

    presets: tuple[str, ...] = ()
    """Presets of planners, as in `gentraj train`; all families share the data, the planner and the training of a
    preset."""
    runs: tuple[str, ...] = ()
    """Existing run folders to compare, instead of presets to train, such as a teacher and its students. DIR@STEPS is a
    run with another number of sampling steps."""
    families: str = ",".join(FAMILIES)
    """Families of models to compare, separated by commas; they are the values of `gentraj train --model`."""
    dataset: str | None = None
    """The dataset, as in `gentraj train`; by default the preset's."""
    budget: float = 7.0
    """Minutes of each training. The number of training steps is found by timing some steps of each family."""
    steps: int | None = None
    """Number of steps of each training, instead of --budget."""
    seeds: int = 3
    """Number of trainings of each family, with the seeds 0, 1, 2 and so on."""
    episodes: int = 50
    """Number of episodes in which each run is evaluated; 0 leaves the returns out."""
    num: int = 512
    """Number of trajectories that are sampled to measure the quality of samples, as in `gentraj measure`."""
    out: Path = Path("runs/comparison")
    """Folder that the runs, comparison.json and comparison.html are written to."""
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
        if {"budget", "steps"} <= {*given}:
            raise ValueError("--budget and --steps both say how long to train; give one of them")
        require(self, seeds=(1, np.inf), episodes=(0, np.inf), num=(8, np.inf), budget=(1e-3, 1e6))
        if self.steps is not None:
            require(self, steps=(1, np.inf))
        check_folder(self.out, "--out")


# -- the data of a group


def read_data(config: PlannerRunConfig) -> Data:
    """The data of these settings. A missing dataset is recorded if gentraj can record it."""
    return read_datasets(config)


def build(config: PlannerRunConfig, data: Data) -> PlannerRun:
    """An untrained run on these data."""
    episodes, returns = data
    resolved, context = PlannerRun.resolve(config, episodes)
    return PlannerRun.build(resolved, DataFacts.of(episodes, context, config.env_id, returns), episodes)


def group_of(config: RunConfig, out: Path) -> Group:
    """The group of a planner's runs with these settings, whose windows are stored in a folder of `out`.

    Raises ValueError for another kind of run.
    """
    planner = of_planner(config, "the run")
    name = digest({"rows": _window_settings(planner)})[:8]
    return keep_group(name, out / name, planner, read_data(planner))


def keep_group(name: str, folder: Path, config: PlannerRunConfig, data: Data) -> Group:
    """The group of runs with these settings. Stores windows of the data in its folder, unless that has them."""
    episodes, returns = data
    resolved, context = PlannerRun.resolve(config, episodes)
    group = Group.of(name, folder, DataFacts.of(episodes, context, config.env_id, returns))

    def make() -> str:
        windows = Windows(episodes, build(resolved, data).model.spec, config.context)
        return group.keep(windows.batch(0, fold(0), WINDOWS))

    kept(folder / DATA, {"sha256": episodes_hash(episodes), "rows": digest({"rows": _window_settings(config)})}, make)
    return group


def of_planner(config: RunConfig, name: str) -> PlannerRunConfig:
    """The settings of a planner's run, unchanged. Raises ValueError for settings of another kind of run."""
    if not isinstance(config, PlannerRunConfig):
        raise ValueError(f"{name} is a {run_class(config).NAME}; a planner is expected, whose families of models are "
                         "compared; gentraj compare --runs compares trained runs of any kind")
    return config


def _window_settings(config: RunConfig) -> tuple[Any, ...]:
    """The settings that determine the windows of a group and their contexts; those of a policy do not matter."""
    if not isinstance(config, PlannerRunConfig):
        return ()
    return (config.dataset, config.horizon, config.stride, config.joint, config.context.kinds, config.context.discount,
            config.stitch)


# -- presets that are trained


def planned(presets: Sequence[str], families: Sequence[str],
            dataset: str | None = None) -> dict[Cell, PlannerRunConfig]:
    """The settings of every preset with every family. Raises ValueError for unknown names."""
    check_known(presets, PRESETS, "preset")
    check_known(families, FAMILIES, "family")
    configs = {}
    for preset in presets:
        base = of_planner(PRESETS[preset], preset)
        base = replace(base, dataset=resolve_paths(dataset or base.dataset, Path()),
                       training=replace(base.training, threads=1))
        if not base.dataset:
            raise ValueError(f"preset '{preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
        for name in families:
            if family_of(base.model) == name:
                configs[preset, name] = base
            else:
                configs[preset, name] = of_planner(with_model(base, FAMILIES[name]), preset)
    return configs


def to_train(configs: Mapping[Cell, PlannerRunConfig], config: CompareConfig,
             options: Options) -> tuple[list[Task], dict[str, Group]]:
    """A task for every family and seed, which trains for the steps or the minutes of the config, and the groups.

    Times some training steps of every family, so nothing should run in parallel.
    """
    groups: dict[str, Group] = {}
    data: dict[str, Data] = {}
    trainings: dict[Cell, tuple[PlannerRunConfig, str]] = {}
    device = pick_device(options.device)
    for (preset, family), planner in configs.items():
        if preset not in groups:
            data[preset] = read_data(planner)
            groups[preset] = keep_group(preset, config.out / preset, planner, data[preset])
        sha256 = episodes_hash(data[preset][0])
        steps = config.steps
        if steps is None:
            key = {"run": training_settings(planner), "sha256": sha256, "device": str(device)}
            with warnings.catch_warnings(action="ignore"):  # the training itself gives these warnings
                seconds = kept(config.out / preset / f"{family}-step-seconds.json", key,
                               partial(_step_seconds, planner, data[preset], device))
            say(f"{preset}: {family} takes {1000 * seconds:.3g} ms a step")
            steps = max(1, round(60 * config.budget / seconds))
        training = replace(planner.training, steps=steps, warmup=min(planner.training.warmup, steps // 10),
                           log_every=max(1, steps // 100), save_every=max(1, min(1000, steps // 8)))
        trainings[preset, family] = replace(planner, training=training), sha256
    tasks = []
    for seed in range(config.seeds):  # outermost, so that a comparison that is stopped early has every family
        for (preset, family), (planner, sha256) in trainings.items():
            name = f"{family}-seed-{seed}"
            tasks.append(Task((preset, family), f"{preset}/{name}", config.out / preset / name,
                              replace(planner, training=replace(planner.training, seed=seed)), sha256,
                              measures_of(planner, groups[preset], options)))
    return tasks, groups


def _step_seconds(config: PlannerRunConfig, data: Data, device: torch.device, blocks: int = 3,
                  steps: int = 8) -> float:
    """Seconds of a training step of all components: the median over blocks of the mean, as steps take different
    times."""
    means = []
    trained = [(component.to(device).train(), component.optimizers(), Windows(data[0], component.spec, config.context))
               for component in build(config, data).components.values()]
    for block in range(blocks + 1):
        began = time.perf_counter()
        for step in range(block * steps, (block + 1) * steps):
            for component, optimizers, windows in trained:
                batch = windows.batch(step, 0, component.batch_size).to(device)
                sum(value.item() for value in component.update(batch, optimizers, generator(step)).values())
        means.append((time.perf_counter() - began) / steps)
    return float(np.median(means[1:]))  # the first block warms up


# -- existing runs


class Entrant(NamedTuple):
    """An existing run, and the number of its sampling steps; None for its own."""

    folder: Path
    steps: int | None = None

    @classmethod
    def of(cls, text: str) -> Entrant:
        """The entrant DIR or DIR@STEPS. A text that names an existing folder is DIR, even with an @ in it.

        Raises ValueError for 0 steps.
        """
        folder, _, steps = text.rpartition("@")
        if not (folder and steps.isdecimal()) or Path(text).exists():
            return cls(Path(text))
        if not int(steps):
            raise ValueError(f"{text} has {steps} sampling steps; give at least 1, or the run alone for its own number")
        return cls(Path(folder), int(steps))

    def __str__(self) -> str:
        return str(self.folder) if self.steps is None else f"{self.folder}@{self.steps}"


def existing(entrants: Sequence[Entrant]) -> dict[Entrant, tuple[Cell, RunConfig]]:
    """The cell and settings of existing runs.

    Runs of a group have the same data wherever these lie, the same environment and the same windows. Runs that differ
    only in their seed are one family, which is called like the first of them.
    """
    groups: dict[tuple[Any, ...], str] = {}
    families: dict[str, str] = {}
    cells: dict[Entrant, tuple[Cell, RunConfig]] = {}
    for entrant in dict.fromkeys(entrants):
        file = RunFolder(entrant.folder).read()
        config = file.run
        hash_of_data = load_checkpoint(entrant.folder).meta["dataset_hash"]
        key = hash_of_data, _environment(file.data), *_window_settings(config)[1:]
        dataset = re.sub(r"[^\w.-]+", "-", Path(config.dataset).name if "." in config.dataset else config.dataset)
        group = groups.setdefault(key, f"{dataset}-{len(groups) + 1}" if groups else dataset)
        settings = {name: value for name, value in to_json(config).items() if name not in ("dataset", "training")}
        alike = json.dumps([group, entrant.steps, config.training.steps, settings])
        cells[entrant] = (group, families.setdefault(alike, str(entrant))), config
    return cells


def _environment(data: DataFacts) -> str | None:
    """The environment of a run, in the same words for all runs that have it."""
    factory = recorded_factory(data.env)
    return data.env if factory is None else factory.spec_json


def to_measure(cells: Mapping[Entrant, tuple[Cell, RunConfig]], out: Path,
               options: Options) -> tuple[list[Task], dict[str, Group]]:
    """A task for every existing run, and the groups with the windows that the first run of each group stores."""
    tasks = []
    groups: dict[str, Group] = {}
    for entrant, (cell, config) in cells.items():
        run = load(entrant.folder, device=pick_device(options.device))
        if cell[0] not in groups:
            groups[cell[0]] = Group.of(cell[0], out / cell[0], run.data)
            groups[cell[0]].keep(run.reference, few=not isinstance(config, PlannerRunConfig))
        place = out / cell[0] / str(Entrant(Path(entrant.folder.absolute().name), entrant.steps))
        measures = measures_of(config, groups[cell[0]], replace(options, steps=entrant.steps), step=run.step)
        task = Task(cell, "", place, config, run.dataset_hash, measures, entrant.folder)
        tasks.append(replace(task, name=f"{cell[0]}/{task.folder.name}"))
    return tasks, groups


# -- the experiment


def compare_families(config: CompareConfig, pool: Pool | None = None) -> tuple[Comparison, Path]:
    """Trains and measures in the pool, by default processes of this machine, what is not done yet;
    returns the contents of comparison.json and the path of the page.

    Steps are timed, and everything is measured, with one thread, as in the processes that train.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = Options(config.episodes, config.num, config.device)
        if config.runs:
            tasks, groups = to_measure(existing([Entrant.of(text) for text in config.runs]), config.out, options)
        else:
            families = [name.strip() for name in config.families.split(",")]
            tasks, groups = to_train(planned(config.presets, families, config.dataset), config, options)
        results = compare(tasks, groups, pool or LocalProcesses(), options)
        given = {field.name: getattr(config, field.name) for field in fields(CompareConfig)
                 if field.name == "episodes" or getattr(config, field.name) not in (field.default, config.out)}
        comparison = Comparison(given, results, *frontier(results))
        write_json(config.out / "comparison.json", to_json(comparison))
        return comparison, write_page(comparison, groups, config.out, config.device)
    finally:
        torch.set_num_threads(threads)


def compare(tasks: Sequence[Task], groups: Mapping[str, Group], pool: Pool,
            options: Options) -> dict[str, GroupResult]:
    """Runs what is not done yet in the pool, and returns the results of each group.

    Raises RuntimeError if all runs failed.
    """
    failures = engine.run(tasks, pool, options.device, lambda some: _outcome(some[0]))
    if len(failures) == len(tasks):
        raise RuntimeError(f"all {len(tasks)} runs failed; the first: {failures[tasks[0].name]}")
    results = {}
    for name, group in groups.items():
        own = [task for task in tasks if task.cell[0] == name]
        runs = {task.name: run_result(task, failures.get(task.name), group, options) for task in own}
        succeeded = [task for task in own if task.name not in failures]
        environment, returns = None, {}
        if succeeded:
            data = RunFolder(succeeded[0].run).read().data
            environment, returns = _environment(data), _baselines(data, runs[succeeded[0].name], group, options)
        results[name] = summarize(runs, group, environment, returns)
    return results


def _outcome(task: Task) -> str:
    found: Control | None = task.result(task.measures[0])
    score = "" if found is None or found.return_mean is None else f", return {show(found.return_mean)}"
    return f"done, {saved_step(task.run)} steps{score}"


def _baselines(data: DataFacts, run: RunResult, group: Group, options: Options) -> dict[str, float]:
    """The returns of the controller and of a random agent in the environment; none where a run of it has none."""
    if data.env is None or run.control is None or run.control.return_mean is None:
        return {}
    config = EvaluationConfig(episodes=options.episodes)
    found = kept(group.folder / BASELINES, {"env": data.env, "episodes": options.episodes}, lambda: score_baselines(
        environment_factory(str(data.env)), config, progress=False, obs_keys=data.obs_keys))
    return {name: scores["return_mean"] for name, scores in found.items()}


def run_result(task: Task, failure: str | None, group: Group, options: Options) -> RunResult:
    """The result of a run, whose speed is measured in this process while nothing runs in parallel."""
    seconds = [row.get("seconds", 0.0) for row in read_metrics(task.run)]
    steps = task.measures[0].depends_on["steps"]
    about = RunResult(task.cell[1], task.seed, str(task.run), failure, task.warnings, saved_step(task.run) or None,
                      steps, sum(seconds) if seconds else None)
    if failure is not None:
        return about
    timed = Measure("speed", partial(speed, group=group, options=replace(options, steps=steps)), Speed,
                    {"windows": group.sha256, "device": options.device, "steps": steps})
    found = task.measured(timed, lambda: load(task.run, device=pick_device(options.device)))
    return replace(about, speed=found, **{measure.name: task.result(measure) for measure in task.measures})
