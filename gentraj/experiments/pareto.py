"""What decisions cost and what they are worth: return, quality, calls and latency of a teacher and its students.

The points that no other point beats in both cost and worth make up the frontier.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.envs.evaluation.evaluate import EvaluationConfig
from gentraj.envs.making import recorded_factory, try_making

from ..config import require
from ..metrics import measure
from ..progress import one_line
from ..runs.evaluation import evaluate_run
from ..runs.folder import Run, load
from ..runs.measures import choose_windows, conditions, sample
from ..trajectory import Agent, SamplingOptions


@dataclass(frozen=True)
class ParetoConfig:
    """How points are measured."""

    episodes: int = 20
    """Number of episodes in which the return is measured; 0 leaves it out."""
    num: int = 256
    """Number of trajectories that are sampled to measure the quality of a planner's samples; 0 leaves it out."""
    decisions: int = 50
    """Number of decisions, for one environment each, that are timed to measure the latency."""
    seed: int = 0
    """Seed of the episodes, the samples and the decisions."""

    def __post_init__(self) -> None:
        require(self, episodes=(0, 1e9), num=(0, 1e9), decisions=(1, 1e9), seed=(0, 2**62))


@dataclass(frozen=True)
class Point:
    """A run, and the number of its sampling steps."""

    run: Run
    steps: int | None = None
    """None is the run's own number."""

    @classmethod
    def of(cls, text: str, device: Any = None) -> Point:
        """The point RUN or RUN@STEPS. A text that names an existing folder is RUN, even with an @ in it.

        Raises ValueError for 0 steps, and what `gentraj.runs.folder.load` raises.
        """
        folder, _, steps = text.rpartition("@")
        given = steps.isdecimal() and bool(folder) and not Path(text).exists()
        if given and not int(steps):
            raise ValueError(f"{text} has {steps} sampling steps; give at least 1, or the run alone for its own number")
        return cls(load(Path(folder if given else text), device=device), int(steps) if given else None)

    @property
    def planner(self) -> PlannerConfig | None:
        """The planner's settings with these steps; None for a policy."""
        planning = self.run.config.planning
        return planning and (replace(planning, steps=self.steps) if self.steps else planning)

    @property
    def options(self) -> SamplingOptions:
        return SamplingOptions(steps=None if self.planner else self.steps)

    @property
    def sampled(self) -> str:
        """The number of its steps in words, if it is not the run's own."""
        return f", {self.steps} step{'s' * (self.steps > 1)}" if self.steps else ""

    def agent(self) -> Agent:
        """The agent whose decisions are timed; what bounds its actions does not change what they cost."""
        ones = np.ones(self.run.data.act_dim, np.float32)
        return self.run.agent(Box(-ones, ones), self.planner, options=self.options)

    def example(self, number: int) -> tuple[Any, Any]:
        """The observation (1, O) and the goal (1, G), if there is one, of a decision."""
        i = number % len(self.run.reference.x_BHD)
        one = self.run.reference.take(slice(i, i + 1))
        obs_BO = one.x_BHD[:, 0, : self.run.data.obs_dim]
        return obs_BO, self.run.config.dry_goal(one, obs_BO, self.run.data.goal_dims)


def pareto(points: Sequence[Point], config: ParetoConfig, *, progress: bool = True) -> dict[str, Any]:
    """Measures all points; returns what pareto.json holds.

    These are `points`, with the name, the folder, the sampler in words, `return_mean`, `return_ci95`, `success_rate`,
    the `quality`, `calls` and `latency_ms` (p50, p99) and `cpu_ms` (p50) of a decision in one environment, and whether
    the point is on the `frontier` of CPU time and `worth`, which is the return, or else the quality; and `left_out`,
    what could not be measured and why. Latencies are measured in turns, so that a busy machine slows all alike. Raises
    ValueError without points, and for runs of different environments.
    """
    if not points:
        raise ValueError("no run is given; give the folder of a teacher, and those of its students")
    _check_environments(points)
    left_out: dict[str, list[str]] = {}
    rows = [{"name": name, "folder": str(point.run.folder), **_worth(point, name, config, left_out, progress)}
            for point, name in zip(points, names(points), strict=True)]
    worth, values = _comparable(rows)
    for row, cost in zip(rows, costs([point.agent() for point in points], points, config), strict=True):
        row |= cost
    for row, on in zip(rows, frontier([row["cpu_ms"] for row in rows], values), strict=True):
        row["frontier"] = on
    return {"points": rows, "worth": worth, "episodes": config.episodes, "num": config.num, "seed": config.seed,
            "left_out": {key: "; ".join(whys) for key, whys in left_out.items()}}


def names(points: Sequence[Point]) -> list[str]:
    """What the points are called: the name of the run's folder, or its path where folders have the same name."""
    short = {point.run.folder: point.run.folder.absolute().name for point in points}  # "." has no name
    taken = Counter(short.values())
    return [(short[folder] if taken[short[folder]] == 1 else str(folder)) + point.sampled
            for point in points for folder in [point.run.folder]]


def _check_environments(points: Sequence[Point]) -> None:
    """Raises ValueError for runs of different environments, whose returns cannot be compared."""
    known = {factory.spec_json: (str(point.run.folder), factory.env_id) for point in points
             if (factory := recorded_factory(point.run.data.env))}
    if len(known) > 1:
        (one, own), (other, differing) = list(known.values())[:2]
        differing += ", with other settings," if own == differing else ""
        raise ValueError(f"{one} is a run in {own} and {other} in {differing}; give runs in the same environment")


def costs(agents: Sequence[Agent], points: Sequence[Point], config: ParetoConfig) -> list[dict[str, Any]]:
    """The calls, the latency and the CPU time of a decision in one environment, of each agent."""
    times = np.zeros((len(agents), config.decisions, 2))
    calls = np.zeros((len(agents), config.decisions))
    for n in range(-1, config.decisions):  # the first one warms up
        for i, (agent, point) in enumerate(zip(agents, points, strict=True)):
            obs_BO, goal_BG = point.example(max(n, 0))
            agent.reset(seeds_B=[config.seed + max(n, 0)])
            before, wall, cpu = _calls(agent), time.perf_counter(), time.thread_time()
            agent.act(obs_BO, goal_BG)
            times[i, n] = time.perf_counter() - wall, time.thread_time() - cpu
            calls[i, n] = _calls(agent) - before
    return [{"calls": float(calls[i].mean()), "latency_ms": (1e3 * np.percentile(times[i, :, 0], [50, 99])).tolist(),
             "cpu_ms": float(1e3 * np.median(times[i, :, 1]))} for i in range(len(agents))]


def frontier(cost: Sequence[float], worth: Sequence[float]) -> list[bool]:
    """Whether no other point costs at most as much and is worth at least as much, with one of them strictly."""
    points = list(zip(cost, worth, strict=True))
    return [not any(c <= cost_i and w >= worth_i and (c, w) != (cost_i, worth_i) for c, w in points)
            for cost_i, worth_i in points]


def _calls(agent: Agent) -> int:
    return agent.network_calls or 0


def _worth(point: Point, name: str, config: ParetoConfig, left_out: dict[str, list[str]],
           progress: bool) -> dict[str, Any]:
    """The return and the quality of a point, None where they cannot be measured."""
    found: dict[str, Any] = dict.fromkeys(("return_mean", "return_ci95", "success_rate", "quality"))
    found["sampling"] = point.run.config.sampling(point.run.components, point.planner, point.options)
    if config.episodes:
        try:
            try_making(point.run.environment())
        except Exception as error:  # an environment may raise anything
            left_out.setdefault("return", []).append(f"{name}: {one_line(error)}")
        else:
            settings = EvaluationConfig(episodes=config.episodes, seed=config.seed, baselines=False)
            scores, _ = evaluate_run(point.run, settings, point.planner, point.options, progress=progress)
            found |= {key: scores.get(key) for key in ("return_mean", "return_ci95", "success_rate")}
    if config.num and point.planner is None:
        left_out.setdefault("quality", []).append(f"{name} plans no trajectories")
    elif config.num and point.planner:
        found["quality"] = quality(point.run, point.planner.steps, config, progress)
    return found


def quality(run: Run, steps: int, config: ParetoConfig, progress: bool = True) -> dict[str, float]:
    """The metrics of `gentraj.metrics.measure` of samples, each conditioned on the start of a window of data.

    They are compared with other windows of the training data that the run keeps. Raises ValueError for too few.
    """
    windows, _ = choose_windows(run, None, 2 * config.num, config.seed)
    num = len(windows.x_BHD) // 2
    start = conditions(run, windows)["start"]
    x_RHD = sample(run, start[num : 2 * num], steps, config.seed, "sampling", progress)
    return measure(windows.x_BHD[:num], x_RHD, seed=config.seed)


def _comparable(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[float]]:
    """What all points are compared by, in words, and its values, higher is better."""
    if all(row["return_mean"] is not None for row in rows):
        return "return", [row["return_mean"] for row in rows]
    if all(row["quality"] is not None for row in rows):
        return "minus sliced Wasserstein distance", [-row["quality"]["sliced_wasserstein"] for row in rows]
    raise ValueError("neither a return nor a quality was measured for all runs; give --episodes or --num above 0, and "
                     "runs whose environment can be made, or planners")
