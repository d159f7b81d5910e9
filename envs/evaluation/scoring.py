"""Scores an agent: native returns with their interval, each score under its own name, and baselines beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Interval
from pydantic import NonNegativeInt, PositiveInt

from gentraj.config import settings
from gentraj.constraints import Circle
from gentraj.data import Episodes
from gentraj.progress import say
from gentraj.ranges import REMEDY, DataRanges, FarFromData
from gentraj.trajectory import Agent

from ..making import EnvironmentFactory, ProtocolName, environment_factory
from ..recording.baselines import RandomAgent, WaypointController
from ..rendering import Watch, rendering
from ..tasks.maze import Disc
from .own_agents import as_agent
from .rollout import Rollout, RolloutSettings, join, rollout
from .scores import normalised
from .stepping import EnvironmentFault, bounds

RESAMPLES = 10_000
OFTEN = 0.05  # of the observations of an evaluation, from which on it says that they are far from the data
BERTH = 1.2  # radius that agents are told that an obstacle has, in units of its own, as none is followed exactly
POSITION = (0, 1)  # entries of an observation in OGBench's mazes that are the robot's position
BASELINE_ENVS = 8  # the baselines gain nothing from more, and an environment takes 50 ms to make


@settings
class EvaluationConfig:
    """How an agent is scored. Raises ValueError for a setting outside its range."""

    episodes: PositiveInt = 50
    """Episodes, each with its own random start and goal."""
    seed: NonNegativeInt = 0
    """Seed of the starts, the goals and the agent; the same seed gives the same episodes to every agent. None of them
    is one in which `gentraj choose`, `sweep`, `finetune` or a learning curve has looked."""
    num_envs: PositiveInt = 25
    """Environments that run side by side. With --batch-invariant, their number changes the speed, never the result."""
    batch_invariant: bool = True
    """Compute decisions so that an episode does not depend on the other environments, bit for bit. A decision for one
    environment then costs as much as one for 16; turn it off to measure how fast the agent of one robot is."""
    protocol: ProtocolName = "random-goal"
    """random-goal: a random goal that stays; d4rl-single-goal: D4RL's fixed goal of each maze, for its score; ogbench:
    each of the five tasks of an OGBench environment, with --episodes episodes each; ogbench-detour: the same in a maze,
    with an obstacle on the shortest way to each goal, of which planners, and policies with a roadmap, are told."""
    baselines: bool = True
    """Whether the data-collecting controller of a maze and a random agent are scored on the same starts and goals."""
    deadline_ms: Annotated[float, Interval(ge=1e-3, le=1e9)] | None = None
    """Milliseconds in which the agent has to act, which are also the time between two environment steps. Planners and
    policies make their next plan or chunk in the background so as to act in time, and decisions that take longer are
    counted. One environment runs at a time, without --batch-invariant."""
    workers: NonNegativeInt = 0
    """Number of processes, each with one environment, for environments that may crash or hang; the scores are the same,
    bit for bit. With 0, this process steps them, without a time limit: the fastest way if a step takes less than a
    millisecond."""
    time_limit: Annotated[float, Interval(ge=1e-3, le=1e6)] = 60.0
    """With --workers: seconds that one reset or step of an environment may take before its episode is given up."""


def score_agent(agent: Agent | Any, env: str, config: EvaluationConfig, *, obs_keys: Sequence[str] = (),
                goal_dims: Sequence[int] = (), progress: bool = True,
                watch: Watch | None = None) -> tuple[dict[str, Any], Episodes]:
    """Runs the agent, anything that `rollout` takes, in `env`, anything that `environment_factory` takes.

    Returns the scores that evaluation.json holds, and the agent's episodes as a dataset. Latencies are in milliseconds,
    first hits in environment steps. Scores that are not defined are None: those that `normalised` leaves out, the
    median first hit if most episodes have none, and everything about goals in an environment without goals. The scores
    name the `protocol` if it is not random-goal (with OGBench's, they have the success rate of each task); it is
    "single-task" in an environment that reports success but has no goals. They have a `deadline` if there is one.
    `watch` is shown the agent's episodes, in environments that render frames; `CannotRender` is raised before the first
    episode if they cannot.

    Where episodes do not finish, the scores are those of the others, "episodes" is their number, and "failures" says in
    a line what went wrong in each of the rest. Raises `EnvironmentFault` if none finishes.
    """
    agent = as_agent(agent)
    period = None if config.deadline_ms is None else config.deadline_ms / 1000
    if period is not None and (config.num_envs > 1 or config.batch_invariant):
        say("with a deadline, one environment runs at a time, without batch_invariant")
        config = replace(config, num_envs=1, batch_invariant=False)
    factory = environment_factory(env, protocol=config.protocol)
    how = RolloutSettings(config.num_envs, config.batch_invariant, config.workers, config.time_limit, period,
                          tuple(obs_keys), tuple(goal_dims))
    shown = rendering(factory) if watch else factory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarFromData)  # of single observations; of all of them it is said below
        played = _play_tasks(agent, shown, config, how, record=True, progress=progress, watch=watch)
    recorded = played.recorded
    assert recorded is not None  # noqa: S101  as it is asked for
    say_far(agent.ranges, played, recorded)
    costs: dict[str, float | None] = dict.fromkeys(("latency_ms_p50", "latency_ms_p99", "network_calls_per_decision"))
    if len(played.latency_ms):
        costs["latency_ms_p50"], costs["latency_ms_p99"] = np.percentile(played.latency_ms, [50, 99]).tolist()
        if played.network_calls is not None:
            costs["network_calls_per_decision"] = played.network_calls / len(played.latency_ms)
    scores = {"env_id": played.env_id, "episodes": len(played.returns), "seeds": [config.seed],
              **summarize(played, factory, config.seed), **costs, "returns": played.returns.tolist(),
              "successes": played.success.tolist() if played.tells_success else None,
              "controller": None, "random": None}
    if config.baselines:
        scores |= score_baselines(factory, config, obs_keys, progress)
    if config.deadline_ms is not None:
        scores["deadline"] = punctuality(played.act_ms, config.deadline_ms) | played.timing
    if config.protocol != "random-goal":
        scores["protocol"] = config.protocol
    elif played.tells_success and "goal" not in recorded.extras:
        scores["protocol"] = "single-task"
    if recorded.env and (watch or len(factory.tasks) > 1):  # that of all tasks, without what it was filmed with
        recorded = replace(recorded, env=factory.spec_json)
    return scores, recorded


def say_far(known: DataRanges | None, played: Rollout, recorded: Episodes) -> None:
    """Says which entries of observations and goals often were far from an agent's data, or else how many observations
    it clamped."""
    found = []
    if known is not None:
        found.append(known.difference(torch.from_numpy(recorded.obs), "observation", OFTEN))
        if known.goal is not None and "goal" in recorded.extras:
            found.append(known.goal.difference(torch.from_numpy(recorded.extras["goal"]), "goal", OFTEN))
    clamped = played.share(played.clamped_steps)
    if far := "; ".join(filter(None, found)):
        say(f"the agent acted far outside its data: {far} {REMEDY}")
    elif clamped:
        say(f"the agent clamped {100 * clamped:.3g} % of the observations, which have an entry too far from its data")


def _play_tasks(agent: Agent, factory: EnvironmentFactory, config: EvaluationConfig, how: RolloutSettings, *,
                watch: Watch | None = None, **options: Any) -> Rollout:
    """The episodes of all tasks of the protocol, one task after the other, with the same seeds.

    They are numbered through for `watch`. Raises `EnvironmentFault` if none finishes.
    """
    parts = list[Rollout]()
    lost = list[str]()
    last: EnvironmentFault | None = None
    for number, task in enumerate(factory.tasks):
        try:
            player = told_of_obstacles(agent, task)
            parts.append(rollout(player, task, config.episodes, config.seed, how,
                                 watch=watch and partial(_watch_from, number * config.episodes, watch), **options))
        except EnvironmentFault as fault:
            last = fault
            say(f"{how.name}: {fault}")
            if fault.finished is None:
                lost += [str(fault)] * config.episodes
            else:
                parts.append(fault.finished)
    if last is not None and not parts:
        raise last
    whole = join(parts)
    return replace(whole, faults=(*whole.faults, *lost))


def told_of_obstacles(agent: Agent, task: EnvironmentFactory) -> Agent:
    """The agent that knows the obstacles of a task; the same, where there are none."""
    if task.protocol != "ogbench-detour":
        return agent
    with closing(task()) as env:
        env.reset(seed=0)
        disc: Disc = env.obstacle
    return agent.avoiding([Circle((disc.x, disc.y), BERTH * disc.radius, POSITION)])


def _watch_from(first: int, watch: Watch, episode: int, env: object) -> None:
    """Shows an episode whose number counts from `first`."""
    watch(first + episode, env)


def score_baselines(factory: EnvironmentFactory, config: EvaluationConfig, obs_keys: Sequence[str],
                    progress: bool) -> dict[str, dict[str, Any] | None]:
    """Scores other agents on the config's episodes: in a PointMaze the noise-free, replanning controller, and a random
    agent if actions are bounded. An agent without a finished episode has no scores."""
    env = factory()
    env.close()
    scores: dict[str, dict[str, Any] | None] = {"controller": None, "random": None}
    agents: dict[str, Agent] = {}
    if factory.pointmaze is not None:  # where the controller needs its own observations
        obs_keys = ()
        agents["controller"] = WaypointController(factory.pointmaze)
    if np.isfinite(bounds(env.action_space)).all():
        agents["random"] = RandomAgent(env.action_space)
    for name, agent in agents.items():
        how = RolloutSettings(BASELINE_ENVS, workers=config.workers, time_limit=config.time_limit, name=name,
                              obs_keys=tuple(obs_keys))
        with suppress(EnvironmentFault):  # none finishes, which is said
            scores[name] = summarize(_play_tasks(agent, factory, config, how, progress=progress), factory, config.seed)
    return scores


def summarize(played: Rollout, factory: EnvironmentFactory, seed: int = 0) -> dict[str, Any]:
    """Returns the scores of a rollout. `return_ci95` is the 95 % bootstrap interval of the mean over episodes.

    A protocol of several tasks has the success rate of each, None where an episode did not finish.
    """
    from scipy.stats import trim_mean  # half a second, which nothing should wait for before the first episode

    mean = float(played.returns.mean())
    goals: dict[str, float | None] = dict.fromkeys(("success_rate", "first_hit_median", "time_at_goal_mean"))
    if played.tells_success:  # else every step with a positive reward would be a success
        goals["success_rate"] = float(played.success.mean())
        goals["time_at_goal_mean"] = float(played.time_at_goal.mean())
        first_hit = float(np.median(played.first_hit))
        if np.isfinite(first_hit):
            goals["first_hit_median"] = first_hit
    if len(factory.tasks) > 1:
        shape = len(factory.tasks), -1
        rates = [None] * shape[0] if played.faults else played.success.reshape(shape).mean(1).tolist()
        goals |= {f"success_rate_task{number}": rate for number, rate in enumerate(rates, 1)}
    return {"return_mean": mean,
            "return_iqm": float(trim_mean(played.returns, 0.25)),
            "return_ci95": bootstrap_interval(played.returns, seed),
            "reward_mean": played.share(played.returns),
            **goals, **normalised(mean, factory),
            "clipped_actions": played.share(played.clipped_steps),
            "clamped_observations": played.share(played.clamped_steps), "failures": list(played.faults)}


def punctuality(act_ms: np.ndarray, deadline_ms: float) -> dict[str, float]:
    """Returns how many calls of `act` took longer than the deadline, and how long they took, in milliseconds."""
    p50, p99, worst = np.percentile(act_ms, [50, 99, 100]).tolist()
    missed = act_ms > deadline_ms
    return {"ms": deadline_ms, "acts": len(act_ms), "misses": int(missed.sum()), "miss_rate": float(missed.mean()),
            "act_ms_p50": p50, "act_ms_p99": p99, "act_ms_worst": worst}


def bootstrap_interval(values: np.ndarray | Sequence[float], seed: int = 0) -> list[float]:
    """Returns [low, high], between which 95 % of the means of samples drawn with replacement lie."""
    means = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values))).mean(1)
    return np.percentile(means, [2.5, 97.5]).tolist()
