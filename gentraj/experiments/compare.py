"""`gentraj compare`: families of models on the same data, trained for the same time, or existing runs.

tasks -> engine -> a `RunResult` of each run -> a `GroupResult` of the runs with the same data -> a `Comparison`.
"""

from __future__ import annotations

import json
import re
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from gentraj.envs.evaluation.evaluate import EvaluationConfig, score_baselines
from gentraj.envs.making import environment_factory, recorded_factory, try_making

from ..config import check_known, to_json, write_json
from ..data import Windows
from ..data.episodes import Episodes, episodes_hash
from ..device import pick_device
from ..families import FAMILIES
from ..families import family as family_of
from ..files import check_folder
from ..metrics import modes_covered
from ..plots.page import show
from ..progress import one_line, say
from ..randomness import fold, generator
from ..runs.evaluation import Acting, evaluate_run
from ..runs.folder import RunFolder, load, run_class
from ..runs.measures import measure_run
from ..runs.model_card import parameters_trained
from ..runs.models import model_config, with_model
from ..runs.planner import PlannerRun, PlannerRunConfig, as_planner
from ..runs.policy import PolicyRunConfig
from ..runs.presets import PRESETS
from ..runs.run import ActingConfig, Component, DataFacts, Run, RunConfig, environment_of
from ..runs.training import join_datasets, read_datasets, resolve_paths
from ..training.checkpoint import load as load_checkpoint
from ..training.checkpoint import saved_step
from ..training.log import read_metrics
from ..trajectory import SamplingOptions, SupportsLogProb, calls_of
from . import engine
from .engine import Measure, Task, digest, kept, read_result, training_settings
from .groups import Group
from .jobs import Pool, pool_of
from .statistics import (
    BySeed,
    Estimate,
    difference,
    interquartile_mean,
    numbers,
    over_seeds,
    probability_of_improvement,
    run_scores,
)

RETURN, TWO_SAMPLE_ACCURACY = "control.return_mean", "quality.measures.start.two_sample_accuracy"
DATA, BASELINES = "data.json", "baselines.json"
WINDOWS = 4096  # sampled from the data of a preset; existing runs bring their reference windows
BATCHES = (1, 16, 64, 256)  # plans that are sampled at a time while they are timed
LIKELIHOODS = 16  # number of windows; a likelihood costs hundreds of network calls
SAMPLES_OF_FORK = 256
SECONDS_TIMED = 0.5  # for which a call is repeated while it is timed
DECISIONS = 50  # that are timed
FOR_TRAINING = ("families", "dataset", "budget", "steps", "seeds")  # settings of presets that are trained

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
    jobs: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: tuple[str, ...] | None = None
    """Run on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine."""
    out: Path = Path("runs/comparison")
    """Folder that the runs, comparison.json and comparison.html are written to."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""

    def check(self) -> None:
        """Raises ValueError for options that contradict each other or are out of range, before any work."""
        if bool(self.presets) == bool(self.runs):
            raise ValueError("give presets to train, or --runs DIR... to compare existing runs; see gentraj compare "
                             "--help")
        given = [name for name in FOR_TRAINING if getattr(self, name) != getattr(CompareConfig, name)]
        if self.runs and given:
            raise ValueError(f"--{given[0]} is for presets that are trained, and --runs names existing runs; leave one "
                             "of them out")
        if {"budget", "steps"} <= {*given}:
            raise ValueError("--budget and --steps both say how long to train; give one of them")
        least = {"--seeds": (self.seeds, 1), "--episodes": (self.episodes, 0), "--steps": (self.steps, 1),
                 "--num": (self.num, 8)}
        for option, (value, low) in least.items():
            if value is not None and value < low:
                raise ValueError(f"{option} is {value}; give at least {low}")
        if not 0 < self.budget < 1e6:
            raise ValueError(f"--budget is {self.budget}; minutes above 0 are expected")
        check_folder(self.out, "--out")

    @property
    def shown(self) -> dict[str, Any]:
        """The options that the head of the page shows: those that were given, and the number of episodes."""
        given = {field.name: getattr(self, field.name) for field in fields(self)
                 if getattr(self, field.name) != field.default}
        return {key: value for key, value in given.items() if key not in ("out", "jobs", "ray")} | {
            "episodes": self.episodes}


# -- what is measured of a run


@dataclass(frozen=True)
class Options:
    """How runs are measured: numbers of episodes and trajectories, the device, and the number of sampling steps, by
    default the run's own."""

    episodes: int
    num: int
    device: str | None = None
    steps: int | None = None

    def acting(self, run: Run) -> ActingConfig | None:
        """The settings of a planner with these steps; None for the run's own."""
        if not isinstance(run, PlannerRun) or self.steps is None:
            return None
        return replace(run.planning, steps=self.steps)

    def sampling(self, run: Run) -> SamplingOptions:
        """How plans are sampled, with a planner's number of steps."""
        if self.steps is None and isinstance(run, PlannerRun):
            return SamplingOptions(steps=run.planning.steps)
        return SamplingOptions(steps=self.steps)


@dataclass(frozen=True)
class Control:
    """Closed-loop scores; None for what the environment does not define, or where it cannot be made."""

    sampling: str
    """How actions or plans were sampled, in words."""
    return_mean: float | None = None
    return_ci95: tuple[float, float] | None = None
    success_rate: float | None = None
    time_at_goal_mean: float | None = None
    score_d4rl: float | None = None
    score_minari: float | None = None
    returns: tuple[float, ...] = ()
    """The return of each episode."""
    left_out: str | None = None
    """Why there is no return."""


@dataclass(frozen=True)
class Quality:
    """The measures of `gentraj measure`: column -> name -> number."""

    measures: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of windows given their first observation and context, in nats per unknown entry in environment
    units; None for a model without one."""

    kind: str
    log_prob_per_entry: float | None


@dataclass(frozen=True)
class Modes:
    """How often samples from the starts of the data go each way at the group's forks, and the mean total variation
    between that and the data."""

    shares: tuple[tuple[float, ...], ...]
    total_variation: float


@dataclass(frozen=True)
class Speed:
    """What a decision costs, and how fast plans are sampled."""

    calls: float
    """Calls of networks in a decision for one environment."""
    decision_ms: tuple[float, float]
    """The median and the 99th percentile of the wall time of such a decision."""
    cpu_ms: float
    """The median of its CPU time in the thread, which other processes change least."""
    plans_per_second: dict[str, float]
    """By batch size; empty for a run that plans nothing."""
    calls_per_plan: int | None
    parameters_sampling: int | None
    parameters_trained: int


def control(run: Run, group: Group, options: Options) -> Control:
    """The agent's scores. Latencies are left out, as other processes run in parallel."""
    sampling = run.sampling(options.acting(run), _agent_options(run, options))
    if not options.episodes:
        return Control(sampling, left_out="no episodes were asked for")
    try:
        try_making(environment_of(run))
    except Exception as error:  # an environment may raise anything
        return Control(sampling, left_out=one_line(error))
    scores, played = evaluate_run(run, EvaluationConfig(episodes=options.episodes, baselines=False),
                                  Acting(options.acting(run), _agent_options(run, options)), progress=False)
    keys = ("return_mean", "return_ci95", "success_rate", "time_at_goal_mean", "score_d4rl", "score_minari")
    return Control(sampling, **{key: scores.get(key) for key in keys}, returns=tuple(played.returns.tolist()))


def _agent_options(run: Run, options: Options) -> SamplingOptions:
    """How an agent samples beside its settings, which have a planner's number of steps."""
    return SamplingOptions(steps=None if isinstance(run, PlannerRun) else options.steps)


def quality(run: Run, group: Group, options: Options) -> Quality:
    steps = options.steps or as_planner(run).planning.steps
    return Quality(measure_run(run, num=options.num, steps=steps, progress=False)["measures"])


def likelihood(run: Run, group: Group, options: Options) -> Likelihood:
    if not isinstance(run.model, SupportsLogProb):
        return Likelihood("none", None)
    x, start = group.x_NHD[:LIKELIHOODS].to(run.device), group.conditions(run, slice(LIKELIHOODS))
    log_prob = run.model.log_prob(x, start) / (~start.mask_BHD).sum((1, 2))
    return Likelihood("exact", log_prob.mean().item())


def modes(run: Run, group: Group, options: Options) -> Modes:
    shares: list[tuple[float, ...]] = []
    variations = []
    for fork in group.forks:
        number = max(1, SAMPLES_OF_FORK // len(fork.x_MHD))
        x = run.model.sample(group.conditions(run, fork.row_M), number, options=options.sampling(run)).flatten(0, 1)
        shares.append(tuple(group.modes(fork, x)))
        data = torch.tensor(fork.shares(fork.mode_M))
        variations.append(modes_covered(torch.tensor(shares[-1]), data).total_variation)
    return Modes(tuple(shares), float(np.mean(variations)))


MEASURES: dict[str, tuple[Callable[..., Any], type[Any]]] = {
    "control": (control, Control), "quality": (quality, Quality), "modes": (modes, Modes),
    "likelihood": (likelihood, Likelihood)}
"""What is measured of a run in parallel with others: functions of a run, its group and the options, with their results.
All but `control` need a run that plans."""


def measure_of(name: str, group: Group, options: Options, **depends_on: Any) -> Measure[Any]:
    """A measure of a run of the group. `depends_on` is what its result depends on besides the options."""
    make, result = MEASURES[name]
    return Measure(name, partial(make, group=group, options=options), result,
                   {"windows": group.sha256, **asdict(options), **depends_on})


def measures_of(config: RunConfig, group: Group, options: Options, **depends_on: Any) -> tuple[Measure[Any], ...]:
    """All measures of a run with these settings."""
    names = MEASURES if isinstance(config, PlannerRunConfig) else ("control",)
    return tuple(measure_of(name, group, options, **depends_on) for name in names)


def speed(run: Run, group: Group, options: Options) -> Speed:
    """Plans are sampled with the planner's number of steps. Their durations are medians over `SECONDS_TIMED` of
    repeated calls, at least three, after one to warm up."""
    decision = decision_cost(run, options)
    if not isinstance(run, PlannerRun):
        return Speed(*decision, {}, None, None, parameters_trained(cast(nn.Module, run.main)))
    model = run.model
    sampling = options.sampling(run)
    per_second: dict[str, float] = {}
    for batch in BATCHES:
        start = group.conditions(run, torch.arange(batch) % len(group.x_NHD), run.planning.goal_dims)
        per_second[str(batch)] = batch / _median_time(lambda c=start: model.sample(c, options=sampling))
    one = group.conditions(run, slice(1))
    before = calls_of([model])
    used = _parameters_used(model, lambda: model.sample(one, options=sampling))
    return Speed(*decision, per_second, calls_of([model]) - before, used, parameters_trained(model))


def decision_cost(run: Run, options: Options) -> tuple[float, tuple[float, float], float]:
    """The calls, the wall time (p50, p99) and the CPU time of a decision for one environment, which begins an
    episode."""
    ones = np.ones(run.data.act_dim, np.float32)  # what bounds the actions does not change what they cost
    agent = run.agent(Box(-ones, ones), options.acting(run), options=_agent_options(run, options))
    wall, cpu, calls = np.zeros((3, DECISIONS))
    for n in range(-1, DECISIONS):  # the first one warms up, and is overwritten
        obs_BO, goal_BG = _example(run, max(n, 0))
        agent.reset(seeds_B=[max(n, 0)])
        before = agent.network_calls or 0
        began_wall, began_cpu = time.perf_counter(), time.thread_time()
        agent.act(obs_BO, goal_BG)
        cpu[n] = time.thread_time() - began_cpu
        wall[n] = time.perf_counter() - began_wall
        calls[n] = (agent.network_calls or 0) - before
    p50, p99 = 1e3 * np.percentile(wall, [50, 99])
    return float(calls.mean()), (float(p50), float(p99)), float(1e3 * np.median(cpu))


def _example(run: Run, number: int) -> tuple[Tensor, Tensor | None]:
    """The observation (1, O) and the goal (1, G), if there is one, of a decision."""
    i = number % len(run.reference.x_BHD)
    one = run.reference.take(slice(i, i + 1))
    obs_BO = one.x_BHD[:, 0, : run.data.obs_dim]
    return obs_BO, run.example_goal(one, obs_BO)


def _parameters_used(model: nn.Module, call: Callable[[], Any]) -> int:
    """The number of parameters of all modules that the call uses."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        used.update({id(p): p.numel() for p in module.parameters(recurse=False)})

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    call()
    for hook in hooks:
        hook.remove()
    return sum(used.values())


def _median_time(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS_TIMED:
        began = time.perf_counter()
        call()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


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
            own = family_of(base.model) == name
            configs[preset, name] = base if own else of_planner(with_model(base, FAMILIES[name]), preset)
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
        first = next(iter(preset_configs.values()))
        episodes, returns = join_datasets(first, read_datasets(first.dataset, None, True))
        sha256 = episodes_hash(episodes)
        for cell, config in preset_configs.items():
            resolved, context = PlannerRun.resolve(config, episodes)
            data = DataFacts.of(episodes, context, config.env_id, returns)
            components = partial(_components, resolved, data, episodes)
            groups[preset] = Group.of(preset, out / preset, data)
            _keep_windows(groups[preset], config, episodes, components)
            at = pick_device(options.device)
            key = {"run": training_settings(config), "sha256": sha256, "device": str(at)}
            with warnings.catch_warnings(action="ignore"):  # the training itself gives these warnings
                seconds = kept(_step_seconds_path(out, cell), key,
                               partial(_step_seconds, components, episodes, resolved, at))
            say(f"{preset}: {cell[1]} takes {1000 * seconds:.3g} ms a step")
            trainings[cell] = _of_steps(config, steps or max(1, round(60 * minutes / seconds))), sha256
    tasks = []
    for seed in range(seeds):  # outermost, so that a comparison that is stopped early has every family
        for (preset, family), (config, sha256) in trainings.items():
            name = f"{family}-seed-{seed}"
            tasks.append(Task((preset, family), f"{preset}/{name}", out / preset / name,
                              replace(config, training=replace(config.training, seed=seed)), sha256,
                              measures_of(config, groups[preset], options)))
    return tasks, groups


def group_of(config: RunConfig, out: Path) -> Group:
    """The group of a planner's runs with these settings, whose windows are stored in a folder of `out`.

    Raises ValueError for another kind of run.
    """
    planner = of_planner(config, "the run")
    episodes, returns = join_datasets(planner, read_datasets(planner.dataset, None, True))
    resolved, context = PlannerRun.resolve(planner, episodes)
    data = DataFacts.of(episodes, context, planner.env_id, returns)
    name = digest({"rows": _window_settings(planner)})[:8]
    group = Group.of(name, out / name, data)
    _keep_windows(group, planner, episodes, partial(_components, resolved, data, episodes))
    return group


def _components(config: PlannerRunConfig, data: DataFacts, episodes: Episodes) -> Mapping[str, Component]:
    return PlannerRun.build(config, data, episodes).components


def _keep_windows(group: Group, config: PlannerRunConfig, episodes: Episodes,
                  components: Callable[[], Mapping[str, Component]]) -> None:
    """Stores windows of the data in the group's folder, unless it has them."""
    def make() -> str:
        windows = Windows(episodes, components()["model"].spec, config.context)
        return group.keep(windows.batch(0, fold(0), WINDOWS))

    kept(group.folder / DATA, {"sha256": episodes_hash(episodes), "rows": digest({"rows": _window_settings(config)})},
         make)


def _of_steps(config: PlannerRunConfig, steps: int) -> PlannerRunConfig:
    return replace(config, training=replace(
        config.training, steps=steps, warmup=min(config.training.warmup, steps // 10), log_every=max(1, steps // 100),
        save_every=max(1, min(1000, steps // 8))))


def _step_seconds_path(out: Path, cell: Cell) -> Path:
    return out / cell[0] / f"{cell[1]}-step-seconds.json"


def _step_seconds(components: Callable[[], Mapping[str, Component]], episodes: Episodes, config: PlannerRunConfig,
                  device: torch.device, blocks: int = 3, steps: int = 8) -> float:
    """Seconds of a training step of all components: the median over blocks of the mean, as steps take different
    times."""
    means = []
    trained = [(component.to(device).train(), component.optimizers(), Windows(episodes, component.spec, config.context))
               for component in components().values()]
    for block in range(blocks + 1):
        began = time.perf_counter()
        for step in range(block * steps, (block + 1) * steps):
            for component, optimizers, windows in trained:
                batch = windows.batch(step, 0, component.batch_size).to(device)
                sum(value.item() for value in component.update(batch, optimizers, generator(step)).values())
        means.append((time.perf_counter() - began) / steps)
    return float(np.median(means[1:]))  # the first block warms up


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
    planner = config
    return (planner.dataset, planner.horizon, planner.stride, planner.joint, planner.context.kinds,
            planner.context.discount, planner.stitch)


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

    @property
    def words(self) -> str:
        """The number of its steps in words, if it is not the run's own."""
        return f", {self.steps} step{'s' * (self.steps > 1)}" if self.steps else ""


def existing(entrants: Sequence[Entrant]) -> dict[Entrant, tuple[Cell, RunConfig]]:
    """The cell and settings of existing runs.

    Runs of a group have the same data wherever these lie, the same environment and the same windows. Runs that differ
    only in their seed are one family. If several families have the same name, the folder of the run is added to it.
    """
    configs: dict[Entrant, RunConfig] = {}
    group_keys: dict[Entrant, tuple[Any, ...]] = {}
    groups: dict[tuple[Any, ...], str] = {}
    families: dict[str, set[str]] = {}
    for entrant in dict.fromkeys(entrants):
        file = RunFolder(entrant.folder).read()
        config, data = file.run, file.data
        key = (load_checkpoint(entrant.folder).meta["dataset_hash"], _environment(data), *_window_settings(config)[1:])
        dataset = config.dataset.rsplit("/", 1)[-1] if "." in config.dataset else config.dataset
        stem = re.sub(r"[^\w.-]+", "-", dataset)
        groups.setdefault(key, f"{stem}-{len(groups) + 1}" if groups else stem)
        families.setdefault(_family_name(config) + entrant.words, set()).add(_settings(config))
        configs[entrant] = config
        group_keys[entrant] = key
    cells: dict[Entrant, tuple[Cell, RunConfig]] = {}
    labels: dict[tuple[str, str], str] = {}
    for entrant, config in configs.items():
        name = _family_name(config) + entrant.words
        label = f"{name} ({entrant.folder})" if len(families[name]) > 1 else name
        label = labels.setdefault((_settings(config), entrant.words), label)
        cells[entrant] = (groups[group_keys[entrant]], label), config
    return cells


def _family_name(config: RunConfig) -> str:
    """The family of a planner's model; the kind of a policy."""
    model = model_config(config)
    if isinstance(config, PlannerRunConfig) and model is not None:
        return family_of(model)
    kind = type(config.policy).__name__.removesuffix("Config") if isinstance(config, PolicyRunConfig) else "MPC"
    return kind if model is None else f"{kind}, {family_of(model)}"


def _settings(config: RunConfig) -> str:
    """All settings that may differ between two families, as JSON."""
    return json.dumps({key: value for key, value in to_json(config).items() if key not in ("dataset", "training")}
                      | {"steps": config.training.steps})


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
        place = out / cell[0] / f"{entrant.folder.absolute().name}{'' if entrant.steps is None else entrant.steps}"
        measures = measures_of(config, groups[cell[0]], replace(options, steps=entrant.steps), step=run.step)
        task = Task(cell, "", place, config, run.dataset_hash, measures, entrant.folder)
        tasks.append(replace(task, name=f"{cell[0]}/{task.folder.name}"))
    return tasks, groups


# -- results


@dataclass(frozen=True)
class Spread:
    """A number over seeds, or a summary with the ends of its 95 % interval."""

    mean: float
    min: float
    max: float

    @property
    def range(self) -> float:
        return self.max - self.min

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.mean(values)), min(values), max(values))

    @classmethod
    def of_estimate(cls, estimate: Estimate) -> Spread:
        return cls(estimate.mean, estimate.low, estimate.high)


@dataclass(frozen=True)
class RunResult:
    """A run; its measures are None if it failed, and all but `control` and `speed` where it plans nothing."""

    family: str
    seed: int
    folder: str
    failure: str | None
    warnings: list[str]
    steps: int | None
    """Training steps."""
    training_seconds: float | None = None
    seconds_per_step: float | None = None
    control: Control | None = None
    quality: Quality | None = None
    modes: Modes | None = None
    likelihood: Likelihood | None = None
    speed: Speed | None = None

    @property
    def returns(self) -> tuple[float, ...]:
        """The return of each episode; empty where there are none."""
        return () if self.control is None else self.control.returns


@dataclass(frozen=True)
class FamilyResult:
    """The runs of a family over their seeds."""

    seeds: int
    failed: int
    warnings: int
    numbers: dict[str, Spread]
    """The mean, minimum and maximum over the seeds of every number of a run, by its dotted key.

    With 95 % intervals in place of minimum and maximum: "return" and "return_iqm", the mean and the interquartile mean
    over seeds, and "above_first" and "improvement", how far the return is above that of the first family and how
    probable it is that a run returns more than one of it. "return_range", over the mean, and "accuracy_range" are how
    far the seeds are apart."""
    likelihood: str | None
    """Its kind."""


@dataclass(frozen=True)
class GroupResult:
    """The runs with the same data."""

    environment: str | None
    runs: dict[str, RunResult]
    families: dict[str, FamilyResult]
    data: dict[str, Spread]
    """One half of the data measured against the other; empty where no run plans."""
    baselines: dict[str, float]
    """The returns of the controller and of a random agent."""


@dataclass(frozen=True)
class FrontierPoint:
    """What a decision of a family costs and what it is worth."""

    name: str
    environment: str | None
    cpu_ms: float
    worth: float
    interval: tuple[float, ...]
    on_frontier: bool
    """Whether no other point of its environment costs at most as much and is worth at least as much, with one of them
    strictly."""


@dataclass(frozen=True)
class Comparison:
    """What comparison.json holds."""

    settings: dict[str, Any]
    groups: dict[str, GroupResult]
    worth: str
    """What the frontier compares: the return, or minus the sliced Wasserstein distance where some run has none."""
    frontier: list[FrontierPoint]


# -- the experiment


def compare_families(config: CompareConfig) -> tuple[Comparison, Path]:
    """Trains and measures what is not done yet; returns the contents of comparison.json and the path of the page.

    Steps are timed, and everything is measured, with one thread, as in the processes that train. Raises ValueError for
    settings that contradict each other or are out of range, before any work.
    """
    from .compare_page import write_page

    config.check()
    pool = pool_of(config.out, config.jobs, config.ray)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = Options(config.episodes, config.num, config.device)
        if config.runs:
            tasks, groups = to_measure(existing([Entrant.of(text) for text in config.runs]), config.out, options)
        else:
            families = [name.strip() for name in config.families.split(",")]
            configs = planned(config.presets, families, config.dataset)
            tasks, groups = to_train(configs, config.seeds, config.budget, config.steps, config.out, options)
        results = compare(tasks, groups, pool, options)
        comparison = Comparison(config.shown, results, *frontier(results))
        write_json(config.out / "comparison.json", to_json(comparison))
        return comparison, write_page(comparison, tasks, groups, config.out, config.device)
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
        env, returns = _baselines(succeeded[0], group, options) if succeeded else (None, {})
        results[name] = summarize(runs, group, env, returns)
    return results


def _outcome(task: Task) -> str:
    found: Control | None = task.result(task.measures[0])
    score = "" if found is None or found.return_mean is None else f", return {show(found.return_mean)}"
    return f"done, {saved_step(task.run)} steps{score}"


def _baselines(task: Task, group: Group, options: Options) -> tuple[str | None, dict[str, float]]:
    """The environment of a group's runs, and the returns of the controller and of a random agent in it."""
    data = RunFolder(task.run).read().data
    control_result = task.result(task.measures[0])
    if data.env is None or control_result is None or control_result.return_mean is None:
        return _environment(data), {}
    config = EvaluationConfig(episodes=options.episodes)
    found = kept(group.folder / BASELINES, {"env": data.env, "episodes": options.episodes}, lambda: score_baselines(
        environment_factory(str(data.env)), config, progress=False, obs_keys=data.obs_keys))
    return _environment(data), {name: scores["return_mean"] for name, scores in found.items()}


def run_result(task: Task, failure: str | None, group: Group, options: Options) -> RunResult:
    """The result of a run, whose speed is measured in this process while nothing runs in parallel."""
    rows = read_metrics(task.run)
    seconds = read_result(_step_seconds_path(task.folder.parents[1], task.cell)) if task.existing is None else None
    about = RunResult(task.cell[1], task.seed, str(task.run), failure, task.warnings, saved_step(task.run) or None,
                      sum(row.get("seconds", 0.0) for row in rows) if rows else None, seconds)
    if failure is not None:
        return about
    steps = task.measures[0].depends_on["steps"]
    timed = Measure("speed", partial(speed, group=group, options=replace(options, steps=steps)), Speed,
                    {"windows": group.sha256, "device": options.device, "steps": steps})
    found = task.measured(timed, lambda: load(task.run, device=pick_device(options.device)))
    return replace(about, speed=found, **{measure.name: task.result(measure) for measure in task.measures})


def summarize(runs: Mapping[str, RunResult], group: Group, environment: str | None,
              baselines: Mapping[str, float]) -> GroupResult:
    """The results of a group. Families are compared with the first one, if that has returns."""
    names = list(dict.fromkeys(run.family for run in runs.values()))
    families = {name: family_result([run for run in runs.values() if run.family == name]) for name in names}
    returns = {name: _returns(runs.values(), name) for name in names}
    for name in names:
        if returns[name]:
            families[name] = _beside_first(families[name], returns[name], {} if name == names[0] else returns[names[0]])
    planned = [run.quality for run in runs.values() if run.quality is not None]
    data = _spreads([numbers(one.measures["data"]) for one in planned])
    if planned:
        data["total_variation"] = Spread.of([group.data_variation()])
    return GroupResult(environment, dict(runs), families, data, dict(baselines))


def family_result(runs: Sequence[RunResult]) -> FamilyResult:
    """The runs of a family over their seeds, without what compares families."""
    succeeded = [run for run in runs if run.failure is None]
    over = _spreads([_numbers(run) for run in succeeded])
    if RETURN in over:
        over["return"] = Spread.of_estimate(over_seeds([run.returns for run in succeeded]))
    if RETURN in over and len(succeeded) > 1:
        over["return_range"] = Spread.of([over[RETURN].range / (abs(over[RETURN].mean) or 1.0)])
    if TWO_SAMPLE_ACCURACY in over and len(succeeded) > 1:
        over["accuracy_range"] = Spread.of([over[TWO_SAMPLE_ACCURACY].range])
    kinds = [run.likelihood.kind for run in succeeded if run.likelihood is not None]
    return FamilyResult(len(runs), len(runs) - len(succeeded), sum(len(run.warnings) for run in runs), over,
                        kinds[0] if kinds else None)


def _numbers(run: RunResult) -> dict[str, float]:
    """Every number of a run by its dotted key, but for its seed."""
    return {key: value for key, value in numbers(to_json(run)).items() if key != "seed"}


def _spreads(results: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The mean, minimum and maximum of every key over the results that have it."""
    keys = dict.fromkeys(key for result in results for key in result)
    return {key: Spread.of([result[key] for result in results if key in result]) for key in keys}


def _returns(runs: Any, family: str) -> dict[Any, Sequence[float]]:
    """The returns of the episodes of each seed of a family; existing runs may have the same seed several times."""
    own = [run for run in runs if run.family == family and run.returns]
    seeds = [run.seed for run in own]
    return {(seed, seeds[:i].count(seed)): own[i].returns for i, seed in enumerate(seeds)}


def _beside_first(family: FamilyResult, own: BySeed, first: BySeed) -> FamilyResult:
    """Adds the interquartile mean over the seeds, and how the returns compare with those of the first family."""
    scores = run_scores([*own.values()])
    found = {"return_iqm": interquartile_mean([scores])}
    if first:
        others = run_scores([*first.values()])
        found |= {"above_first": difference([own], [first]),
                  "improvement": probability_of_improvement([scores], [others])}
    return replace(family, numbers=family.numbers | {key: Spread.of_estimate(one) for key, one in found.items()})


def frontier(groups: Mapping[str, GroupResult]) -> tuple[str, list[FrontierPoint]]:
    """What decisions are compared by, in words, and the families of all groups; none where some have neither a return
    nor a quality."""
    families = [(f"{name}: {family}" if len(groups) > 1 else family, group.environment, result.numbers)
                for name, group in groups.items() for family, result in group.families.items() if result.numbers]
    worth, key, sign = "return", "return", 1.0
    if any(key not in found for _, _, found in families):
        worth, key, sign = "minus sliced Wasserstein distance", "quality.measures.start.sliced_wasserstein", -1.0
    if any(key not in found for _, _, found in families):
        return worth, []
    points = [(env, found["speed.cpu_ms"].mean, sign * found[key].mean) for _, env, found in families]
    intervals = [tuple(sorted((sign * found[key].min, sign * found[key].max))) for _, _, found in families]
    return worth, [FrontierPoint(name, *point, interval, on_frontier(point, points))
                   for (name, _, _), point, interval in zip(families, points, intervals, strict=True)]


def on_frontier(point: tuple[str | None, float, float], points: Sequence[tuple[str | None, float, float]]) -> bool:
    """Whether no other point (environment, cost, worth) of the same environment is as cheap and worth as much."""
    env, cost, worth = point
    return not any(other_env == env and c <= cost and w >= worth and (c, w) != (cost, worth)
                   for other_env, c, w in points)
