"""What any agent does with the observations that it is given: all floats are read, and what is no number is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from gentraj.agents.mpc import MPC, MPCConfig
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.bc import BC, BCConfig
from gentraj.agents.policies.scales import StateActionScales
from gentraj.agents.policies.student import Student, StudentActor, StudentConfig
from gentraj.agents.realtime.background import Deadline
from gentraj.agents.realtime.planner import RealTimePlanner
from gentraj.data import ContextConfig, Episodes
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.families import ACTION_MODELS
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.runs import DataFacts
from gentraj.trajectory import SamplingOptions, TrajectorySpec

TINY = ResidualMLPConfig(8, 1, 0)
LOW, HIGH = -np.ones(1, np.float32), np.ones(1, np.float32)
MADE = ("policy", "planner", "planner with a deadline", "student", "control")


def episodes(goals: bool) -> Episodes:
    """Ten episodes of five steps, with observations of width 3 and, if asked for, goals of width 2."""
    rng, end = np.random.default_rng(0), np.arange(50) % 5 == 4
    extras = {"goal": rng.normal(size=(60, 2)).astype(np.float32)} if goals else {}
    return Episodes(rng.normal(size=(60, 3)), rng.uniform(-1, 1, (50, 1)), np.zeros(50), end, np.zeros(50, bool),
                    np.full(10, 5), extras)


def made(kind: str, *, goals: bool = False) -> Any:
    """An untrained agent that acts by observations of width 3."""
    if kind == "control":
        return MPC(lambda obs_BO, act_BNTA, goal_BG: obs_BO.sum(1, keepdim=True) + act_BNTA.sum((2, 3)),
                   MPCConfig(horizon=2, samples=4), LOW, HIGH)
    scales = StateActionScales.fit(episodes(goals), ContextConfig(("goal",) if goals else ()))
    if kind == "policy":
        config: Any = BCConfig(ACTION_MODELS["gaussian"].with_network(TINY))
        return Actor(BC(config, scales), LOW, HIGH, SamplingOptions(temperature=0))
    if kind == "student":
        return StudentActor(Student(StudentConfig(width=8, depth=1), scales), LOW, HIGH)
    model = Diffusion(TrajectorySpec(3, 0, 4), DiffusionConfig(TINY, levels=None), Normalizer.identity(3))
    settings = PlannerConfig("fixed", lookahead=1, replan=2, steps=1, temperature=0, goal_dims=(0, 1))
    inverse = InverseDynamics.blank(3, 1, InverseDynamicsConfig(width=8, lookahead=1))
    sampler, tracker = PlanSampler(model, settings), PlanTracker(model.spec, settings, LOW, HIGH, inverse)
    return Planner(sampler, tracker) if kind == "planner" else RealTimePlanner(sampler, tracker, Deadline(60.0))


def act(agent: Any, obs: Any, goal: Any = None) -> torch.Tensor:
    agent.reset([0])
    return agent.act(obs, goal)


@pytest.mark.parametrize("kind", MADE)
def test_observations_and_goals_in_float64_are_those_in_float32(kind: str) -> None:
    for goals in (False, True):
        torch.manual_seed(0)
        agent, obs, goal = made(kind, goals=goals), torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[0.25, 1.0]])
        given = (obs, goal) if goals else (obs,)
        single = act(agent, *given)
        assert single.dtype == torch.float32
        assert torch.equal(act(agent, *(x.double() for x in given)), single)


@pytest.mark.parametrize("kind", MADE)
def test_an_agent_that_acts_in_inference_mode_is_reset_and_acts_outside_of_it(kind: str) -> None:
    torch.manual_seed(0)
    agent, obs = made(kind), torch.tensor([[0.5, -1.0, 2.0]])
    with torch.inference_mode():
        agent.reset(seed=0)
        inside = [agent.act(obs) for _ in range(3)]
    agent.reset([0], torch.tensor([True]))
    assert torch.equal(torch.cat([agent.act(obs) for _ in range(3)]), torch.cat(inside))


@pytest.mark.parametrize("kind", MADE)
def test_what_is_no_observation_is_refused_before_it_leads_to_an_action(kind: str) -> None:
    agent = made(kind, goals=kind != "control")
    goal = torch.zeros(1, 2)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the observations that were given to an agent are not finite"):
            act(agent, torch.tensor([[0.0, bad, 0.0]]), goal)
        with pytest.raises(ValueError, match="the goals that were given to an agent are not finite"):
            act(agent, torch.zeros(1, 3), goal + bad)
    act(agent, torch.zeros(1, 3), goal)  # and in the middle of a plan or a chunk
    with pytest.raises(ValueError, match="observations that were given to an agent are not finite"):
        agent.act(torch.full((1, 3), torch.nan), goal)
    shapes = [torch.zeros(1, 4)] if kind != "control" else []
    for wrong in (*shapes, torch.zeros(1, 1, 3)):
        with pytest.raises(ValueError, match=r"observations of shape .* were given to an agent; \(B, [3O]\) is expect"):
            act(agent, wrong, goal)


@pytest.mark.parametrize("kind", [kind for kind in MADE if "planner" in kind])
def test_a_planner_refuses_an_action_that_is_not_finite(kind: str) -> None:
    torch.manual_seed(0)
    agent, goal = made(kind), torch.zeros(1, 2)
    agent.tracker.inverse.obs.scale_D.fill_(0.01)
    act(agent, torch.zeros(1, 3), goal)
    with pytest.raises(ValueError, match="an action of the planner is not finite in 1 of 1 entries; the observation"):
        agent.act(torch.full((1, 3), 1e38), goal)  # in the middle of a plan


def test_a_policy_refuses_an_action_that_is_not_finite() -> None:
    agent = made("policy")
    for parameter in agent.policy.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="an action of the policy is not finite in 1 of 1 entries; the observation"):
        act(agent, torch.zeros(1, 3))


def test_a_run_acts_in_no_space_of_other_actions() -> None:
    data = DataFacts.of(episodes(False), ContextConfig(), None)
    assert data.allowed(Box(-1, 1, (1,))) == Box(-1, 1, (1,))
    with pytest.raises(ValueError, match=r"the action space is Box.*\(3,\).*was trained on actions of width 1; give"):
        data.allowed(Box(-1, 1, (3,)))
