"""A planner with a history: how its model is conditioned on the past, where its plans begin, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planners import KnownModel, KnownTrust, KnownValue
from planners import planner as made
from torch import Tensor

from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.memory import ObservationBuffer, shift_time
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.planner_config import PlannerConfig
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import Batch, Condition, TrajectorySpec

ACTS = PlannerConfig("fixed", replan=1, lookahead=1, actions="joint")
SPEC = TrajectorySpec(1, 1, 8)
ARRIVES = replace(ACTS, arrival="earliest", goal_dims=(0,), shifted=True)


def goes_on(condition: Condition, seeds: Sequence[int]) -> Tensor:
    """Plans with s' = s + 1 in each timestep and a = 10 s."""
    x = condition.values_BHD.clone()
    for b, known_H in enumerate(condition.mask_BHD[..., 0]):
        last = int(known_H.nonzero().max()) if condition.mask_BHD[b, 0, 0] else 0
        obs_H1 = (x[b, last, 0] + torch.arange(len(known_H)) - last)[:, None]
        x[b] = torch.where(condition.mask_BHD[b], x[b], torch.cat([obs_H1, 10 * obs_H1], 1))
    return x


def planner(spec: TrajectorySpec = SPEC, base: PlannerConfig = ACTS, critic: Any = None, guide: Any = None,
            **changes: Any) -> tuple[Planner, KnownModel]:
    model = KnownModel(spec, goes_on)
    return made(model, replace(base, **changes), 1, trust=KnownTrust(9), critic=critic, guide=guide), model


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 12))
def test_the_prefix_is_the_last_timesteps_that_the_episode_has(length: int, stride: int, steps: int) -> None:
    """After t steps, timestep h of p holds the observation and the action of (p - h) strides ago."""
    buffer = ObservationBuffer(TrajectorySpec(1, 1, 8, stride), length, 2, torch.device("cpu"))
    for t in range(steps):
        buffer.add(torch.tensor([[t], [-t]]), torch.tensor([[t + 0.5], [0]]))
    prefix = buffer.prefix(torch.tensor([True, False]))
    p = min(steps // stride, length)
    assert prefix.present_B.tolist() == [p] and prefix.x_BKD.shape == (1, length, 2)
    assert prefix.x_BKD[0, :p].tolist() == [[t, t + 0.5] for t in range(steps - p * stride, steps, stride)]


def test_the_model_is_conditioned_on_the_whole_past_and_the_present_observation() -> None:
    agent, model = planner(history=2)
    done = []
    for t in range(4):
        done.append(agent.act(torch.tensor([[10.0 + t / 10], [20.0]], dtype=torch.float64))[0, 0].item())
        p = min(t, 2)
        assert model.asked.mask_BHD[0].int().tolist() == [[1, 1]] * p + [[1, 0]] + [[0, 0]] * (7 - p)
        past = [x for k in range(t - p, t) for x in (10 + k / 10, done[k])]
        known = model.asked.values_BHD[0, : p + 1].flatten()[:-1]
        torch.testing.assert_close(known, torch.tensor([*past, 10 + t / 10]))
    agent.reset(torch.tensor([True, False]))
    agent.act(torch.tensor([[3.0], [4.0]]))
    assert model.asked.mask_BHD[..., 0].sum(1).tolist() == [1, 3]


@pytest.mark.parametrize("shifted", [False, True])
def test_plans_begin_at_the_present(shifted: bool) -> None:
    """A past without new information changes no action, neither of a plan nor of the tail of one."""
    acted, spec = [], TrajectorySpec(1, 1, 9, 2)
    select: Any = {"select": "value", "shifted": True} if shifted else {}
    for history in (0, 3):
        critic = KnownValue(lambda x: -torch.arange(len(x)), spec)
        agent, _ = planner(spec, critic=critic, replan=3, history=history, **select)
        acted.append([agent.act(torch.full((1, 1), 0.5 * t))[0, 0].item() for t in range(12)])
        assert agent.last.x_BNHD[0, 0, :, 0].tolist() == [4.5 + min(h, 8 - history) for h in range(9)]
    assert acted[0] == acted[1] == [5.0 * t for t in range(12)]


def test_a_fixed_arrival_is_at_the_model_s_last_timestep_however_long_the_past() -> None:
    agent, model = planner(history=2, goal_dims=(0,))
    for t in range(4):
        agent.act(torch.full((2, 1), float(t)), torch.full((2, 1), 50.0))
        assert model.asked.mask_BHD[0, :, 0].nonzero().flatten().tolist() == [*range(min(t, 2) + 1), 7]
        assert model.asked.values_BHD[0, 7, 0] == 50 and agent.last.arrival_step_BN.tolist() == [[7 - min(t, 2)]] * 2


def test_every_candidate_has_the_past_of_its_environment() -> None:
    """Three environments began at different times, and plan towards goals with the tails of their plans."""
    agent, model = planner(base=ARRIVES, replan=2, history=3, candidates=2)
    for t in range(6):
        agent.reset(torch.tensor([False, t == 2, t == 4]))
        agent.act(torch.full((3, 1), float(t)), torch.full((3, 1), 50.0))
    present_B, arrival_BN, x_BNHD = torch.tensor([3, 2, 0]), agent.last.arrival_step_BN, agent.last.x_BNHD
    trust: Any = agent.sampler.trust
    assert trust.present_R.tolist() == present_B.repeat_interleave(arrival_BN.shape[1]).tolist()
    asked = model.asked.mask_BHD[..., 0].view(*arrival_BN.shape, 8)
    for b, present in enumerate(present_B.tolist()):
        assert (arrival_BN[b, 1:] <= 7 - present).all() and asked[b, :, : present + 1].all()
        goal_N = x_BNHD[b, torch.arange(arrival_BN.shape[1]), arrival_BN[b], 0]
        assert (goal_N == 50).all() and (x_BNHD[b, :, 0, 0] == 4).all()
    assert asked[0, 0, 4:].any() and model.asked.mask_BHD[..., 1].view(*arrival_BN.shape, 8)[0, 0, 4]  # the tail


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4))
def test_the_tail_of_a_plan_arrives_where_it_still_can(history: int, stride: int, replan: int) -> None:
    agent, _ = planner(TrajectorySpec(1, 1, 9, stride), ARRIVES, replan=replan, history=history)
    for t in range(12):
        agent.act(torch.full((1, 1), float(t)), torch.full((1, 1), 50.0))
        x_NHD, arrival_N = agent.last.x_BNHD[0], agent.last.arrival_step_BN[0]
        assert (x_NHD[torch.arange(len(arrival_N)), arrival_N, 0] == 50).all()


def test_trajectories_that_are_shifted_stay_inside() -> None:
    x = torch.arange(5)[None].expand(3, -1)
    assert shift_time(x, torch.tensor([0, 3, -2])).tolist() == [[0, 1, 2, 3, 4], [3, 4, 4, 4, 4], [0, 0, 0, 1, 2]]


@pytest.mark.parametrize(("changes", "message"), [
    ({"history": 7}, "history is 7 of 8 timesteps, which leaves 0 .* need 1;"),
    ({"history": 2, "replan": 7}, "leaves 5 environment steps .* need 6"),
    ({"history": 2, "guide": lambda x: x[:, 0, 0]}, "guide a planner with a history of 0"),
    ({"history": 2, "replan": 5, "shifted": True, "select": "value", "critic": KnownValue(None, SPEC)},
     "at most 4 .* 8 timesteps and a history of 2"),
    ({"history": 1, "spec": TrajectorySpec(1, 1, 4, 1, (1, 2, 4))}, "history needs evenly spaced timesteps")])
def test_what_a_history_does_not_go_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner(**changes)


def test_a_history_is_for_no_exported_planner() -> None:
    with pytest.raises(ValueError, match="history is 2 timesteps"):
        planner(history=2)[0].decide(torch.zeros(1, 1), None, [0])


def test_a_planner_that_remembers_knows_what_one_observation_does_not_tell() -> None:
    """With s' = s + d and a constant d of -1 or 1, the present alone does not determine d."""
    torch.manual_seed(0)
    spec, rng = TrajectorySpec(1, 0, 4), generator(0)
    config = DiffusionConfig(ResidualMLPConfig(32, 2, 0), levels=None, ema=0.98)
    model = Diffusion(spec, config, Normalizer(torch.zeros(1), torch.full((1,), 5.0)),
                      conditioning=ConditionMix(goal=0, prefix=0.5))
    optimizers = model.optimizers()
    for _ in range(600):
        d_B1 = torch.randint(2, (128, 1), generator=rng) * 2.0 - 1
        x_BHD = (10 * torch.rand(128, 1, generator=rng) - 5 + d_B1 * torch.arange(4))[..., None]
        model.update(Batch(x_BHD, torch.ones_like(x_BHD, dtype=torch.bool)), optimizers, rng)
    inverse: Any = InverseDynamics.blank(1, 1, InverseDynamicsConfig(lookahead=1))
    inverse.forward = lambda obs_BO, target_BO, k: target_BO - obs_BO
    d_B1, right = torch.tensor([[-1.0], [1.0]]).repeat(20, 1), []
    for history in (0, 2):
        agent = made(model, replace(ACTS, actions="inverse", history=history), 1, inverse=inverse)
        agent.reset(None, range(40))
        acts = [agent.act(d_B1 * t) for t in range(3)]
        right.append((acts[-1].sign() == d_B1).float().mean().item())
    assert right[1] > 0.95 > 0.7 > right[0]
