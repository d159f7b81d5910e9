"""What is measured of a run: numbers as JSON holds them."""

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

from envs.evaluation.evaluate import EvaluationConfig, evaluate

from ..metrics import modes_covered
from ..runs.folder import Run
from ..runs.measures import measure_run
from ..runs.model_card import parameters_trained
from ..trajectory import SamplingOptions, SupportsLogProb
from .engine import Measure
from .groups import Group, conditions

BATCHES = (1, 16, 64, 256)
LIKELIHOODS = 16  # windows; a likelihood costs hundreds of network calls
SAMPLED = 256  # trajectories from each fork
SECONDS = 0.5  # that a call is repeated for while it is timed


@dataclass(frozen=True)
class Options:
    """How to measure."""

    episodes: int
    num: int
    device: str | None = None


def quality(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """What `gentraj measure` says, of as many sampling steps as the planner takes."""
    return measure_run(run, num=options.num, steps=run.planning.steps, progress=False)


def likelihood(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """Of windows of the data given their first observation: nats per unknown entry, environment units."""
    if not isinstance(run.model, SupportsLogProb):
        return {"kind": "none", "log_prob_per_entry": None}
    x = group.x_NHD[:LIKELIHOODS].to(run.model.device)
    start = conditions(run.model.spec, x)
    log_prob = run.model.log_prob(x, start) / (~start.mask_BHD).sum((1, 2))
    return {"kind": "exact", "log_prob_per_entry": log_prob.mean().item()}


def modes(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """How often its samples go each way at the group's forks, from the very starts of the data there."""
    shares, variations = [], []
    for fork in group.forks:
        start = conditions(run.model.spec, fork.x_MHD.to(run.model.device))
        x = run.model.sample(start, max(1, SAMPLED // len(fork.x_MHD)),
                             options=SamplingOptions(steps=run.planning.steps)).flatten(0, 1)
        shares.append(group.modes(fork, x))
        data = torch.tensor(fork.shares(fork.mode_M))
        variations.append(modes_covered(torch.tensor(shares[-1]), data).total_variation)
    return {"shares": shares, "total_variation": float(np.mean(variations))}


def control(run: Run, group: Group, options: Options) -> dict[str, Any]:
    """The planner's closed-loop scores, and the return of each episode; nothing where data name no environment.

    Its latencies are left out: other processes ran beside it.
    """
    if run.data.env is None:
        return {}
    scores, played = evaluate(run.planner(run.action_space(run.data.env)), run.data.env,
                              EvaluationConfig(episodes=options.episodes, baselines=False), progress=False,
                              obs_keys=run.data.obs_keys, goal_dims=run.planning.goal_dims)
    kept = {k: v for k, v in scores.items() if isinstance(v, int | float) and not k.startswith("latency")}
    return kept | {"return_ci95": scores["return_ci95"], "returns": played.returns.tolist()}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {  # of a run, its group and the options
    "control": control, "quality": quality, "modes": modes, "likelihood": likelihood}


def measures(group: Group, options: Options, **asked: Any) -> tuple[Measure, ...]:
    """All of them, of a run of that group; `asked` is what the results depend on besides."""
    asked = {"windows": group.sha256, **asdict(options), **asked}
    return tuple(Measure(name, partial(make, group=group, options=options), asked) for name, make in MEASURES.items())


def speed(run: Run, group: Group) -> dict[str, Any]:
    """Plans a second by batch, with the planner's number of steps; network calls of a plan; a decision of the planner.

    Medians of what is repeated for `SECONDS`, at least three times after one to warm up.
    """
    model, options = run.model, SamplingOptions(steps=run.planning.steps)
    per_second: dict[str, float] = {}
    for batch in BATCHES:
        x = group.x_NHD[torch.arange(batch) % len(group.x_NHD)].to(model.device)
        start = conditions(model.spec, x, run.planning.goal_dims)
        per_second[str(batch)] = batch / _median_time(lambda c=start: model.sample(c, options=options))
    before, one = model.network_calls, conditions(model.spec, group.x_NHD[:1].to(model.device))
    used = _parameters_used(model, lambda: model.sample(one, options=options))
    return {"plans_per_second": per_second, "calls_per_plan": model.network_calls - before,
            "decision_ms": _decision_ms(run, group), "parameters_sampling": used,
            "parameters_trained": parameters_trained(model)}


def _parameters_used(model: nn.Module, call: Callable[[], Any]) -> int:
    """Of all modules that are called on the way, whatever the model is made of."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: Any) -> None:
        used.update({id(p): p.numel() for p in module.parameters(recurse=False)})

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    call()
    for hook in hooks:
        hook.remove()
    return sum(used.values())


def _decision_ms(run: Run, group: Group) -> float | None:
    """Of one environment: all candidates, and which of them is trusted."""
    if run.data.env is None:
        return None
    planner = run.planner(run.action_space(run.data.env))
    x = group.shown(1)
    obs = run.model.spec.split(x)[0]
    goal = obs[:, -1, list(run.planning.goal_dims)] if run.planning.goal_dims else None
    return 1000 * _median_time(lambda: planner.propose(obs[:, 0], goal, [0]))


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
