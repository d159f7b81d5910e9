"""A copy of any agent, also one in another process, acts with the same bits as the agent itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from test_policies import EVERY, SMALL, taught

from gentraj.agents.mpc import MPCConfig
from gentraj.agents.policies import ACTORS
from gentraj.agents.policies.actor import Actor
from gentraj.agents.realtime.background import Deadline, SimulatedTime
from gentraj.agents.realtime.policy import RealTimeActor
from gentraj.agents.wrappers import NoisyAgent
from gentraj.data import Episodes
from gentraj.runs.kinds.planner_run import PlannerRunConfig
from gentraj.runs.kinds.policy_run import PolicyRunConfig
from gentraj.runs.kinds.presets import PRESETS, PUBLISHED
from gentraj.runs.kinds.run import Run
from gentraj.runs.kinds.world_run import WorldModelRunConfig
from gentraj.runs.learn.training import prepare

LOW, HIGH = -np.ones(2, np.float32), np.ones(2, np.float32)
OTHER = {*PUBLISHED, "far-objects"}  # other sizes of the same agents; one that needs data of objects
RUNS = {name: config for name, config in PRESETS.items() if name not in OTHER
        and (not isinstance(config, PolicyRunConfig) or config.roadmap is not None)}
FOR_RETURNS = {name for name, config in RUNS.items()
               if isinstance(config, PlannerRunConfig) and not config.conditioning.goal and not config.context.goals}
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickled": lambda agent: cloudpickle.loads(cloudpickle.dumps(agent)), "deep-copied": copy.deepcopy}


def walks(*, goals: bool) -> Episodes:
    """Twelve walks in the plane, which record their goals or have none."""
    rng, length, count = np.random.default_rng(0), 40, 12
    last = np.arange(length * count) % length == length - 1
    obs = 0.1 * rng.normal(size=(count * (length + 1), 4)).cumsum(0)
    data = Episodes(obs, rng.uniform(-1, 1, (len(last), 2)), rng.normal(size=len(last)), last & False, last,
                    np.full(count, length))
    if not goals:
        return data
    return replace(data, extras={"goal": obs[:, :2]}, goal_dims=(0, 1))


@cache
def run(name: str) -> Run:
    """An untrained run of a preset, with small networks."""
    config: Any = RUNS[name]
    goals = name not in FOR_RETURNS
    if isinstance(config, PlannerRunConfig):
        config = replace(config, model=config.model.with_network(SMALL), horizon=9, stride=math.prod(config.refine))
    elif isinstance(config, WorldModelRunConfig):
        config = replace(config, control=MPCConfig(horizon=2, samples=4))
    made, _ = prepare(config, data=walks(goals=goals), check=False)
    return made.ready(None)


def agent(name: str, deadline: Deadline | None = None) -> Any:
    return run(name).agent(Box(LOW, HIGH), deadline=deadline)


def actor(name: str) -> Any:
    policy = taught(name)
    return ACTORS.get(type(policy), Actor)(policy, np.array([-1, -1, -5], np.float32), np.array([1, 1, 3], np.float32))


def simulated() -> Deadline:
    time = SimulatedTime()
    return Deadline(1.0, actor("iql"), time, time)


AGENTS: dict[str, Callable[[], Any]] = {
    **{name: partial(actor, name) for name in EVERY}, **{name: partial(agent, name) for name in RUNS},
    "policy with a deadline": lambda: RealTimeActor(actor("bc-diffusion"), Deadline(1e6, actor("student"))),
    "policy by a simulated clock": lambda: RealTimeActor(actor("bc-diffusion"), simulated()),
    "planner on a roadmap with a deadline": lambda: agent("far-goals", Deadline(1e6, agent("far-gcbc"))),
    "planner with a deadline": lambda: agent("pointmaze", Deadline(1e6, agent("goals"))),
    "planner by a simulated clock": lambda: agent("pointmaze", simulated()),
    "exploring": lambda: NoisyAgent(actor("iql"), np.array([-1, -1, -5]), np.array([1, 1, 3]), 0.1)}


def decisions(name: str, agent: Any, number: int, first: int = 0) -> torch.Tensor:
    """Actions in one environment, from the step `first` on."""
    obs_dim, goal_BG = 4, torch.full((1, 2), 3.0)
    if agent.spec is not None and agent.spec.obs_dim == 2:  # a policy's
        obs_dim, goal_BG = 2, goal_BG[:, :1]
    goal = None if name in FOR_RETURNS else goal_BG
    return torch.stack([agent.act(torch.full((1, obs_dim), 0.1 * (first + i)), goal) for i in range(number)])


@pytest.mark.filterwarnings("ignore:no recorded way leads:UserWarning")  # the walks do not meet
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", AGENTS)
def test_a_copy_of_any_agent_acts_as_it_does(name: str, how: str) -> None:
    original = AGENTS[name]()
    original.reset([3])
    fresh = COPIES[how](original)
    before = decisions(name, original, 3)
    assert torch.equal(decisions(name, fresh, 3), before)
    begun = COPIES[how](original)
    assert torch.equal(decisions(name, begun, 6, first=3), decisions(name, original, 6, first=3))
