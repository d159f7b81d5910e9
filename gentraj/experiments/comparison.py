"""What `gentraj compare` measures of a run, and how it sums up the runs of a group: the contents of comparison.json."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn

from gentraj.envs.evaluation.evaluate import EvaluationConfig
from gentraj.envs.making import try_making

from ..config import to_json
from ..metrics import modes_covered
from ..progress import one_line
from ..runs.evaluation import Acting, evaluate_run
from ..runs.measures import measure_run
from ..runs.model_card import parameters_trained
from ..runs.planner import PlannerRun, PlannerRunConfig
from ..runs.run import Run, RunConfig, environment_of, of_kind
from ..trajectory import SamplingOptions, SupportsLogProb, calls_of
from .engine import Measure
from .groups import Group
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

BATCHES = (1, 64, 256)  # plans that are sampled at a time while they are timed
LIKELIHOODS = 16  # number of windows; a likelihood costs hundreds of network calls
SAMPLES_OF_FORK = 256
SECONDS_TIMED = 0.5  # for which a call is repeated while it is timed
DECISIONS = 50  # that are timed


# -- what is measured of a run


@dataclass(frozen=True)
class Options:
    """How runs are measured: numbers of episodes and trajectories, the device, and the number of sampling steps, by
    default the run's own."""

    episodes: int
    num: int
    device: str | None = None
    steps: int | None = None

    def acting(self, run: Run) -> Acting:
        """How an agent acts with these steps, which are among the settings of a planner."""
        if not isinstance(run, PlannerRun):
            return Acting(options=SamplingOptions(steps=self.steps))
        if self.steps is None:
            return Acting()
        return Acting(replace(run.planning, steps=self.steps))

    def sampling(self, run: PlannerRun) -> SamplingOptions:
        """How plans are sampled."""
        return SamplingOptions(steps=self.steps or run.planning.steps)


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
    cpu_ms: float
    """The median CPU time of such a decision in the thread, which other processes change least."""
    parameters_trained: int
    parameters_sampling: int | None = None
    calls_per_plan: int | None = None
    plans_per_second: dict[str, float] | None = None
    """By batch size; None for a run that plans nothing, as the two above."""


def control(run: Run, group: Group, options: Options) -> Control:
    """The agent's scores. Latencies are left out, as other processes run in parallel."""
    acting = options.acting(run)
    sampling = run.sampling(acting.settings, acting.options)
    if not options.episodes:
        return Control(sampling, left_out="no episodes were asked for")
    try:
        try_making(environment_of(run))
    except Exception as error:  # an environment may raise anything
        return Control(sampling, left_out=one_line(error))
    config = EvaluationConfig(episodes=options.episodes, baselines=False)
    scores, played = evaluate_run(run, config, acting, progress=False)
    keys = ("return_mean", "return_ci95", "success_rate", "time_at_goal_mean", "score_d4rl", "score_minari")
    return Control(sampling, **{key: scores.get(key) for key in keys}, returns=tuple(played.returns.tolist()))


def quality(run: Run, group: Group, options: Options) -> Quality:
    steps = options.steps or of_kind(run, PlannerRun).planning.steps
    return Quality(measure_run(run, num=options.num, steps=steps, progress=False)["measures"])


def likelihood(run: Run, group: Group, options: Options) -> Likelihood:
    if not isinstance(run.model, SupportsLogProb):
        return Likelihood(None)
    start = group.conditions(run, slice(LIKELIHOODS))
    log_prob_B = run.model.log_prob(group.x_NHD[:LIKELIHOODS].to(run.device), start)
    return Likelihood((log_prob_B / (~start.mask_BHD).sum((1, 2))).mean().item())


def modes(run: Run, group: Group, options: Options) -> Modes:
    shares: list[tuple[float, ...]] = []
    variations = []
    for fork in group.forks:
        number = max(1, SAMPLES_OF_FORK // len(fork.x_MHD))
        start = group.conditions(run, fork.row_M)
        x = run.model.sample(start, number, options=options.sampling(of_kind(run, PlannerRun))).flatten(0, 1)
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
    """The cost of a decision and of plans. The durations of the latter are medians over `SECONDS_TIMED` of repeated
    calls, at least three, after one to warm up."""
    calls, cpu_ms = decision_cost(run, options)
    found = Speed(calls, cpu_ms, parameters_trained(cast(nn.Module, run.main)))
    if not isinstance(run, PlannerRun):
        return found
    model = run.model
    sampling = options.sampling(run)
    one = group.conditions(run, slice(1))
    before = calls_of([model])
    used = _parameters_used(model, lambda: model.sample(one, options=sampling))
    calls_per_plan = calls_of([model]) - before
    per_second = {}
    for batch in BATCHES:
        start = group.conditions(run, torch.arange(batch) % len(group.x_NHD), run.planning.goal_dims)
        per_second[str(batch)] = batch / _median_time(partial(model.sample, start, options=sampling))
    return replace(found, parameters_sampling=used, calls_per_plan=calls_per_plan, plans_per_second=per_second)


def decision_cost(run: Run, options: Options) -> tuple[float, float]:
    """The mean number of network calls and the median milliseconds of CPU time of a decision for one environment, which
    begins an episode."""
    ones = np.ones(run.data.act_dim, np.float32)  # what bounds the actions does not change what they cost
    acting = options.acting(run)
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
    return float(calls[1:].mean()), float(1e3 * np.median(seconds[1:]))  # the first one warms up


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


# -- the results


@dataclass(frozen=True)
class Spread:
    """A number over seeds, or a summary with the ends of its 95 % interval."""

    mean: float
    min: float
    max: float

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
    sampling_steps: int | None = None
    """The number of sampling steps, where it is not the run's own."""
    training_seconds: float | None = None
    control: Control | None = None
    quality: Quality | None = None
    modes: Modes | None = None
    likelihood: Likelihood | None = None
    speed: Speed | None = None


Family = dict[str, Spread]
"""The mean, minimum and maximum over a family's seeds of every number of a run, by its dotted key, and the number of
seeds that "failed" and of "warnings".

With 95 % intervals in place of minimum and maximum: "return" and "return_iqm", the mean and the interquartile mean over
seeds, and "above_first" and "improvement", how far the return is above that of the first family and how probable it is
that a run returns more than one of it."""


@dataclass(frozen=True)
class GroupResult:
    """The runs with the same data."""

    environment: str | None
    runs: dict[str, RunResult]
    families: dict[str, Family]
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
    interval: tuple[float, float]
    on_frontier: bool = False
    """Whether no other point of its environment costs at most as much and is worth at least as much, with one of them
    strictly."""

    def beats(self, other: FrontierPoint) -> bool:
        """Whether it is in the other's environment as cheap and worth as much, and better in one of them."""
        own, others = (self.cpu_ms, self.worth), (other.cpu_ms, other.worth)
        return self.environment == other.environment and own[0] <= others[0] and own[1] >= others[1] and own != others


@dataclass(frozen=True)
class Comparison:
    """What comparison.json holds."""

    settings: dict[str, Any]
    groups: dict[str, GroupResult]
    worth: str
    """What the frontier compares: the return, or minus the sliced Wasserstein distance where some run has none."""
    frontier: list[FrontierPoint]


def summarize(runs: Mapping[str, RunResult], group: Group, environment: str | None,
              baselines: Mapping[str, float]) -> GroupResult:
    """The results of a group. Families are compared with the first one, if that has returns."""
    of_family: dict[str, list[RunResult]] = {}
    for run in runs.values():
        of_family.setdefault(run.family, []).append(run)
    first: BySeed = {}
    families: dict[str, Family] = {}
    for name, own in of_family.items():
        families[name] = family_result(own, first)
        if len(families) == 1:
            first = _returns(own)
    data = _spreads([run.quality.measures["data"] for run in runs.values() if run.quality is not None])
    if data:
        data["total_variation"] = Spread.of([group.data_variation()])
    return GroupResult(environment, dict(runs), families, data, dict(baselines))


def family_result(runs: Sequence[RunResult], first: BySeed) -> Family:
    """The runs of a family over their seeds, beside the returns of the first family, if there are any."""
    succeeded = [run for run in runs if run.failure is None]
    found = _spreads([to_json(run) for run in succeeded])
    found["failed"] = Spread.of([float(len(runs) - len(succeeded))])
    found["warnings"] = Spread.of([float(sum(len(run.warnings) for run in runs))])
    own = _returns(succeeded)
    if own:
        scores = run_scores([*own.values()])
        summaries = {"return": over_seeds([*own.values()]), "return_iqm": interquartile_mean([scores])}
        if first:
            others = run_scores([*first.values()])
            summaries["above_first"] = difference([own], [first])
            summaries["improvement"] = probability_of_improvement([scores], [others])
        found |= {key: Spread.of_estimate(summary) for key, summary in summaries.items()}
    return found


def _spreads(results: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    """The mean, minimum and maximum of every number, by its dotted key, over the results that have it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for key, value in numbers(result).items():
            values.setdefault(key, []).append(value)
    return {key: Spread.of(found) for key, found in values.items()}


def _returns(runs: Sequence[RunResult]) -> dict[Any, Sequence[float]]:
    """The returns of the episodes of each seed; existing runs may have the same seed several times."""
    found: dict[Any, Sequence[float]] = {}
    for run in runs:
        if run.control is not None and run.control.returns:
            again = sum(seed == run.seed for seed, _ in found)
            found[run.seed, again] = run.control.returns
    return found


def frontier(groups: Mapping[str, GroupResult]) -> tuple[str, list[FrontierPoint]]:
    """What decisions are compared by, in words, and the families of all groups; none where some have neither a return
    nor a quality."""
    families = []
    for name, group in groups.items():
        title = f"{name}: " if len(groups) > 1 else ""
        families += [(title + family, group.environment, found) for family, found in group.families.items()
                     if "speed.cpu_ms" in found]
    for worth, key, sign in (("return", "return", 1.0),
                             ("minus sliced Wasserstein distance", "quality.measures.start.sliced_wasserstein", -1.0)):
        if all(key in found for _, _, found in families):
            points = []
            for name, environment, found in families:
                low, high = sorted((sign * found[key].min, sign * found[key].max))
                points.append(FrontierPoint(name, environment, found["speed.cpu_ms"].mean, sign * found[key].mean,
                                            (low, high)))
            return worth, mark_frontier(points)
    return "return", []


def mark_frontier(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """The points, which say whether they are on the frontier."""
    return [replace(point, on_frontier=not any(other.beats(point) for other in points)) for point in points]
