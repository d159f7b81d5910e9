"""`gentraj compare`: families of models on the same data, trained for the same time, or existing runs."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from gentraj.envs.evaluation.evaluate import EvaluationConfig, score_baselines
from gentraj.envs.making import environment_factory, recorded_factory

from ..config import check_known, to_json
from ..data import Windows
from ..data.episodes import Episodes, episodes_hash
from ..device import pick_device
from ..families import FAMILIES
from ..families import family as family_of
from ..plots.page import show
from ..progress import say
from ..randomness import fold, generator
from ..runs.folder import build, load, read_config, read_data, resolve_paths
from ..runs.kinds import AnyRunConfig
from ..runs.planner import PlannerRunConfig
from ..runs.presets import PRESETS, check_goals
from ..runs.settings import Component, DataFacts
from ..training.checkpoint import load as load_checkpoint
from ..training.checkpoint import saved_step
from ..training.log import read_metrics
from . import engine
from .compare_measures import MEASURES, Options, measures, speed
from .engine import Measure, Task, deciding, digest, kept, read_result
from .groups import Group
from .processes import Pool
from .statistics import (
    BySeed,
    Estimate,
    difference,
    interquartile_mean,
    numbers,
    over_seeds,
    probability_of_improvement,
    run_scores,
    spread,
)

RETURN, TWO_SAMPLE_ACCURACY = "control.return_mean", "quality.measures.start.two_sample_accuracy"
NUMBERS = ("speed", "training_seconds", "seconds_per_step", "steps")  # of a run, besides `MEASURES`
DATA, BASELINES = "data.json", "baselines.json"
WINDOWS = 4096  # sampled from the data of a preset; existing runs bring their reference windows

Cell = tuple[str, str]  # group and family: the runs of a group have the same data, timesteps, contexts, environment
Record = dict[str, Any]


# -- the tasks


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
            own = family_of(base.model) == name
            configs[preset, name] = base if own else base.with_generator(FAMILIES[name])
    return configs


def to_train(configs: Mapping[Cell, PlannerRunConfig], seeds: int, minutes: float, steps: int | None, out: Path,
             options: Options) -> tuple[list[Task], dict[str, Group]]:
    """A task for every config and seed, which trains for `steps` steps or else `minutes` minutes, and the groups.

    Times some training steps of every family, so nothing should run in parallel. A missing dataset is recorded if
    gentraj can record it.
    """
    groups: dict[str, Group] = {}
    trainings: dict[Cell, tuple[PlannerRunConfig, str]] = {}
    for preset in dict.fromkeys(preset for preset, _ in configs):
        preset_configs = {cell: config for cell, config in configs.items() if cell[0] == preset}
        episodes, returns = read_data(first := next(iter(preset_configs.values())))
        if note := check_goals(preset, first):
            say(note)
        sha256 = episodes_hash(episodes)
        for cell, config in preset_configs.items():
            data = DataFacts.of(episodes, config.context, config.env_id, returns)
            components = partial(build, resolved := config.resolve(episodes), data, episodes)
            groups[preset] = Group.of(preset, out / preset, data)
            _keep_windows(groups[preset], config, episodes, components)
            with warnings.catch_warnings(action="ignore"):  # the training itself gives these warnings
                timed = {"run": deciding(config), "sha256": sha256} | _accelerator(options.device)
                seconds = kept(_step_seconds_path(out, cell), timed, partial(
                    _step_seconds, components, episodes, resolved, options.device))
            say(f"{preset}: {cell[1]} takes {1000 * seconds:.3g} ms a step")
            trainings[cell] = _of_steps(config, steps or max(1, round(60 * minutes / seconds))), sha256
    return [Task(cell, f"{cell[0]}/{cell[1]}-seed-{seed}", out / cell[0] / f"{cell[1]}-seed-{seed}",
                 replace(config, training=replace(config.training, seed=seed)), sha256,
                 measures(groups[cell[0]], options))
            for seed in range(seeds)  # outermost, so that a comparison that is stopped early has every family
            for cell, (config, sha256) in trainings.items()], groups


def group_of(config: AnyRunConfig, out: Path) -> Group:
    """The group of a planner's runs with these settings, whose windows are stored in a folder of `out`.

    Raises ValueError for another kind of run.
    """
    planner = of_planner(config, "the run")
    episodes, returns = read_data(planner)
    data = DataFacts.of(episodes, planner.context, planner.env_id, returns)
    name = digest({"rows": _rows(planner)})[:8]
    group = Group.of(name, out / name, data)
    _keep_windows(group, planner, episodes, partial(build, planner.resolve(episodes), data, episodes))
    return group


def _keep_windows(group: Group, config: PlannerRunConfig, episodes: Episodes,
                  components: Callable[[], Mapping[str, Component]]) -> None:
    """Stores windows of the data in the group's folder, unless it has them."""
    def make() -> str:
        windows = Windows(episodes, components()["model"].spec, config.context)
        return group.keep(windows.batch(0, fold(0), WINDOWS))

    kept(group.folder / DATA, {"sha256": episodes_hash(episodes), "rows": digest({"rows": _rows(config)})}, make)


def _of_steps(config: PlannerRunConfig, steps: int) -> PlannerRunConfig:
    return replace(config, training=replace(
        config.training, steps=steps, warmup=min(config.training.warmup, steps // 10), log_every=max(1, steps // 100),
        save_every=max(1, min(1000, steps // 8))))


def _accelerator(device: str | None) -> dict[str, str]:
    """The device that steps are timed on, if it is not the CPU, whose times were stored without it."""
    at = pick_device(device)
    return {} if at.type == "cpu" else {"device": str(at)}


def _step_seconds_path(out: Path, cell: Cell) -> Path:
    return out / cell[0] / f"{cell[1]}-step-seconds.json"


def _step_seconds(components: Callable[[], Mapping[str, Component]], episodes: Episodes, config: PlannerRunConfig,
                  device: str | None, blocks: int = 3, steps: int = 8) -> float:
    """Seconds of a training step of all components: the median over blocks of the mean, as steps take different
    times."""
    at, means = pick_device(device), []
    trained = [(component.to(at).train(), component.optimizers(), Windows(episodes, component.spec, config.context))
               for component in components().values()]
    for block in range(blocks + 1):
        began = time.perf_counter()
        for step in range(block * steps, (block + 1) * steps):
            for component, optimizers, windows in trained:
                batch = windows.batch(step, 0, component.batch_size).to(at)
                sum(value.item() for value in component.update(batch, optimizers, generator(step)).values())
        means.append((time.perf_counter() - began) / steps)
    return float(np.median(means[1:]))  # the first block warms up


def existing(folders: Sequence[Path]) -> dict[Path, tuple[Cell, PlannerRunConfig]]:
    """The cell and settings of existing runs.

    Runs of a group have the same data wherever these lie, and the same environment. Runs that differ only in their seed
    are one family. If several families of a group have the same name, the folder of the run is added to the name.
    """
    configs, rows = {}, {}
    for folder in dict.fromkeys(map(Path, folders)):
        config, data = read_config(folder)
        configs[folder] = of_planner(config, str(folder))
        rows[folder] = load_checkpoint(folder).meta["dataset_hash"], _environment(data), *_rows(configs[folder])[1:]
    groups, families = {}, {}
    for folder, config in configs.items():
        stem = re.sub(r"[^\w.-]+", "-", config.dataset.rsplit("/", 1)[-1] if "." in config.dataset else config.dataset)
        groups.setdefault(rows[folder], f"{stem}-{len(groups) + 1}" if groups else stem)
        families.setdefault((rows[folder], family_of(config.model)), set()).add(_settings(config))
    cells, labels = {}, {}
    for folder, config in configs.items():
        group, name = groups[rows[folder]], family_of(config.model)
        label = f"{name} ({folder})" if len(families[rows[folder], name]) > 1 else name
        cells[folder] = (group, labels.setdefault((group, _settings(config)), label)), config
    return cells


def _environment(data: DataFacts) -> str | None:
    """The environment of a run, in the same words for all runs that have it."""
    factory = recorded_factory(data.env)
    return data.env if factory is None else factory.spec_json


def to_measure(existing_runs: Mapping[Path, tuple[Cell, PlannerRunConfig]], out: Path,
               options: Options) -> tuple[list[Task], dict[str, Group]]:
    """A task for every existing run, and the groups with the windows that the first run of each group stores."""
    tasks, groups = [], {}
    for folder, (cell, config) in existing_runs.items():
        run = load(folder, device=pick_device(options.device))
        if cell[0] not in groups:
            groups[cell[0]] = Group.of(cell[0], out / cell[0], run.data)
            groups[cell[0]].keep(run.reference)
        task = Task(cell, "", out / cell[0] / folder.absolute().name, config, run.dataset_hash,
                    measures(groups[cell[0]], options, step=run.step), folder)
        tasks.append(replace(task, name=f"{cell[0]}/{task.folder.name}"))
    return tasks, groups


def of_planner(config: AnyRunConfig, name: str) -> PlannerRunConfig:
    """The settings of a planner's run, unchanged. Raises ValueError for settings of another kind of run."""
    if config.planning is None:
        raise ValueError(f"{name} is a {config.NAME} ({config.summary}); gentraj compare compares planners by their "
                         "models, and gentraj evaluate scores any run")
    return cast(PlannerRunConfig, config)


def _rows(config: PlannerRunConfig) -> tuple:
    """The settings that determine the windows of a group and their contexts."""
    unstitched = () if config.stitch else ("not stitched",)  # added later: the windows stored before stay those of True
    return (config.dataset, config.horizon, config.stride, config.joint, config.context.kinds, config.context.discount,
            *unstitched)


def _settings(config: PlannerRunConfig) -> str:
    """All settings that may differ between two families, as JSON."""
    return json.dumps({key: value for key, value in to_json(config).items() if key not in ("dataset", "training")}
                      | {"steps": config.training.steps})


# -- the experiment and its results


def compare(tasks: Sequence[Task], groups: Mapping[str, Group], pool: Pool, options: Options) -> Record:
    """Runs what is not done yet in the pool, and returns what comparison.json holds of each group.

    Raises RuntimeError if all runs failed.
    """
    failures = engine.run(tasks, pool, options.device, lambda some: _outcome(some[0]))
    succeeded = [task for task in tasks if task.name not in failures]
    if not succeeded:
        raise RuntimeError(f"all {len(tasks)} runs failed; the first: {failures[tasks[0].name]}")
    results = {}
    for name, group in groups.items():
        group_tasks = [task for task in succeeded if task.cell[0] == name]
        speeds = {task.name: _speed(task, group, options) for task in group_tasks}
        records = {task.name: record(task, failures.get(task.name), speeds.get(task.name))
                   for task in tasks if task.cell[0] == name}
        results[name] = summarize(records, group) | {"baselines": _baselines(group_tasks, group, options)}
    return results


def _outcome(task: Task) -> str:
    control = task.results["control"]
    score = f", return {show(control['return_mean'])}" if control else ""
    return f"done, {saved_step(task.run)} steps{score}"


def _speed(task: Task, group: Group, options: Options) -> Record:
    """How fast a run samples, measured in this process while nothing runs in parallel."""
    measured_with = {"windows": group.sha256, "device": options.device}
    return task.measured(Measure("speed", partial(speed, group=group), measured_with),
                         lambda: load(task.run, device=pick_device(options.device)))


def _baselines(tasks: Sequence[Task], group: Group, options: Options) -> Record:
    """The scores of the controller and of a random agent in the group's environment."""
    data = read_config(tasks[0].run)[1] if tasks else None
    if data is None or (env := data.env) is None:
        return {}
    return kept(group.folder / BASELINES, {"env": env, "episodes": options.episodes}, lambda: score_baselines(
        environment_factory(env), EvaluationConfig(episodes=options.episodes), progress=False, obs_keys=data.obs_keys))


def record(task: Task, failure: str | None, speed: Record | None) -> Record:
    """What comparison.json holds of a run."""
    rows = read_metrics(task.run)
    seconds = read_result(_step_seconds_path(task.folder.parents[1], task.cell)) if task.existing is None else None
    about = {"family": task.cell[1], "seed": task.seed, "folder": str(task.run), "failure": failure,
             "steps": saved_step(task.run) or None,
             "training_seconds": sum(row.get("seconds", 0.0) for row in rows) if rows else None,
             "seconds_per_step": seconds, "warnings": task.warnings}
    return about if failure is not None else about | task.results | {"speed": speed}


def summarize(records: Mapping[str, Record], group: Group) -> Record:
    """What comparison.json holds of a group.

    "runs" holds the record of each run. "families" holds for each family the numbers of seeds and of failed seeds, and
    the mean, minimum and maximum of every number over the other seeds; and where there are returns, with 95 % intervals
    as "min" and "max", their interquartile mean over seeds and the difference and the probability of improvement over
    the first family. "data" holds the measures of data against data.
    """
    families = {name: _family([r for r in records.values() if r["family"] == name])
                for name in dict.fromkeys(r["family"] for r in records.values())}
    returns = {name: found for name in families if (found := _returns(records, name))}
    for name in returns:
        families[name] |= _robust(returns[name], returns.get(next(iter(families))))
    data = spread(numbers(r["quality"]["measures"]["data"]) for r in records.values() if r["failure"] is None)
    return {"runs": dict(records), "families": families,
            "data": {"measures": data, "modes": [fork.shares(fork.mode_M) for fork in group.forks],
                     "total_variation": group.data_variation()}}


def _returns(records: Mapping[str, Record], family: str) -> dict[Any, list[float]]:
    """The returns of the episodes of each seed of a family; existing runs may have the same seed several times."""
    own = [r for r in records.values() if r["family"] == family and r["failure"] is None and r["control"]]
    seeds = [r["seed"] for r in own]
    return {(seed, seeds[:i].count(seed)): own[i]["control"]["returns"] for i, seed in enumerate(seeds)}


def _robust(own: BySeed, first: BySeed | None) -> Record:
    """The interquartile mean over the seeds of a family, and how its returns compare with those of the first family, if
    that has any."""
    def shown(value: Estimate) -> dict[str, float]:
        return {"mean": value.mean, "min": value.low, "max": value.high}

    scores = run_scores([*own.values()])
    found = {"return_iqm": shown(interquartile_mean([scores]))}
    if first is not None and own is not first:
        others = run_scores([*first.values()])
        found |= {"above_first": shown(difference([own], [first])),
                  "improvement": shown(probability_of_improvement([scores], [others]))}
    return found


def _family(records: Sequence[Record]) -> Record:
    succeeded = [r for r in records if r["failure"] is None]
    over = spread(numbers({name: r[name] for name in (*MEASURES, *NUMBERS)}) for r in succeeded)
    summary: Record = {"seeds": len(records), "failed": len(records) - len(succeeded), "numbers": over,
                       "warnings": sum(len(r["warnings"]) for r in records)}
    ranges = {key: over[key]["max"] - over[key]["min"] for key in (RETURN, TWO_SAMPLE_ACCURACY)
              if key in over and len(succeeded) > 1}
    if succeeded:
        summary["likelihood"] = succeeded[0]["likelihood"]["kind"]
    if RETURN in over:
        summary["return_ci95"] = over_seeds([r["control"]["returns"] for r in succeeded]).interval
    if RETURN in ranges:
        ranges[RETURN] /= abs(over[RETURN]["mean"]) or 1.0
    return summary | {"spread": ranges}
