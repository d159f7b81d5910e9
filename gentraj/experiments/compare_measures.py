"""What `gentraj compare` measures of a run, as JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from gentraj.envs.evaluation.evaluate import EvaluationConfig, evaluate

from ..metrics import modes_covered
from ..runs.folder import Run
from ..runs.measures import measure_run
from ..runs.model_card import parameters_trained
from ..trajectory import SamplingOptions, SupportsLogProb, calls_of
from .engine import Measure
from .groups import Group

BATCHES = (1, 16, 64, 256)
LIKELIHOODS = 16  # number of windows; a likelihood costs hundreds of network calls
SAMPLED = 256  # number of trajectories from each fork
SECONDS = 0.5  # a call is repeated for this long while it is timed


@dataclass(frozen=True)
class Options:
    """Options of the measures: numbers of episodes and trajectories, and the device."""

    episodes: int
    num: int
    device: str | None = None


def quality(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """The measures of `gentraj measure`, with the planner's number of sampling steps."""
    return measure_run(run, num=options.num, steps=run.planning.steps, progress=False)


def likelihood(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """The log-likelihood of windows given their first observation and context, in nats per unknown entry in
    environment units."""
    if not isinstance(run.model, SupportsLogProb):
        return {"kind": "none", "log_prob_per_entry": None}
    x, start = group.x_NHD[:LIKELIHOODS].to(run.device), group.conditions(run, slice(LIKELIHOODS))
    log_prob = run.model.log_prob(x, start) / (~start.mask_BHD).sum((1, 2))
    return {"kind": "exact", "log_prob_per_entry": log_prob.mean().item()}


def modes(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """How often samples from the starts of the data go each way at the group's forks."""
    shares, variations = [], []
    for fork in group.forks:
        x = run.model.sample(group.conditions(run, fork.row_M), max(1, SAMPLED // len(fork.x_MHD)),
                             options=SamplingOptions(steps=run.planning.steps)).flatten(0, 1)
        shares.append(group.modes(fork, x))
        data = torch.tensor(fork.shares(fork.mode_M))
        variations.append(modes_covered(torch.tensor(shares[-1]), data).total_variation)
    return {"shares": shares, "total_variation": float(np.mean(variations))}


def control(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """The closed-loop scores of the planner and the return of each episode; empty if the data name no environment.

    Latencies are left out, as other processes run in parallel.
    """
    if run.data.env is None:
        return {}
    scores, played = evaluate(run.planner(run.action_space(run.data.env)), run.data.env,
                              EvaluationConfig(episodes=options.episodes, baselines=False), progress=False,
                              obs_keys=run.data.obs_keys, goal_dims=run.planning.goal_dims)
    numbers = {k: v for k, v in scores.items() if isinstance(v, int | float) and not k.startswith("latency")}
    return numbers | {"return_ci95": scores["return_ci95"], "returns": played.returns.tolist()}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {  # functions of a run, its group and the options
    "control": control, "quality": quality, "modes": modes, "likelihood": likelihood}


def measures(group: Group, options: Options, **asked: Any) -> tuple[Measure, ...]:
    """All measures of a run of the group. `asked` is what their results depend on besides the options."""
    asked = {"windows": group.sha256, **asdict(options), **asked}
    return tuple(Measure(name, partial(make, group=group, options=options), asked) for name, make in MEASURES.items())


def speed(run: Run, group: Group) -> dict[str, Any]:
    """Plans per second by batch size, network calls per plan, the duration of a planner's decision, and parameters.

    Plans are sampled with the planner's number of steps. Durations are medians over `SECONDS` of repeated calls, at
    least three, after one to warm up.
    """
    model, options = run.model, SamplingOptions(steps=run.planning.steps)
    per_second: dict[str, float] = {}
    for batch in BATCHES:
        start = group.conditions(run, torch.arange(batch) % len(group.x_NHD), run.planning.goal_dims)
        per_second[str(batch)] = batch / _median_time(lambda c=start: model.sample(c, options=options))
    before, one = calls_of([model]), group.conditions(run, slice(1))
    used = _parameters_used(model, lambda: model.sample(one, options=options))
    return {"plans_per_second": per_second, "calls_per_plan": calls_of([model]) - before,
            "decision_ms": _decision_ms(run, group), "parameters_sampling": used,
            "parameters_trained": parameters_trained(model)}


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


def _decision_ms(run: Run, group: Group) -> float | None:
    """Milliseconds of a planner's decision in one environment; None if the data name no environment."""
    if run.data.env is None:
        return None
    planner = run.planner(run.action_space(run.data.env))
    obs = run.model.spec.split(group.x_NHD[group.shown(1)])[0]
    goal = obs[:, -1, list(run.planning.goal_dims)] if run.planning.goal_dims else None
    return 1000 * _median_time(lambda: planner.sampler.sample(obs[:, 0], goal, [0]))


def _median_time(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS:
        began = time.perf_counter()
        call()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
