"""A planner with a history: how its model is conditioned on the past, where its plans begin, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gentraj.agents.planning.execution import History, shift_time
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.planner import Planner, PlannerConfig
from gentraj.agents.planning.trust import Trust
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.models.conditioning import ConditionMix
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions, TrajectorySpec

CPU, HIGH = torch.device("cpu"), np.full(1, 99, np.float32)
ACTS = PlannerConfig("fixed", replan=1, lookahead=1, actions="joint")


class GoesOn:
    """A model of plans with s' = s + 1 in each timestep and a = 10 s; it keeps the conditions that it was given."""

    network_calls, device = 0, CPU

    def __init__(self, spec: TrajectorySpec):
        self.spec = spec

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: object = None, observe: object = None,
               seed: Sequence[int] = (), options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.asked = condition
        x = condition.values_BHD.clone()
        for b, known_H in enumerate(condition.mask_BHD[..., 0]):
            last = int(known_H.nonzero().max()) if condition.mask_BHD[b, 0, 0] else 0
            obs_H = x[b, last, 0] + torch.arange(self.spec.horizon) - last
            x[b] = torch.where(condition.mask_BHD[b], x[b], self.spec.join(obs_H[:, None], 10 * obs_H[:, None]))
        return x[:, None]


class Trusting(Trust):
    """Trusts late arrivals more than early ones."""

    def __init__(self) -> None:
        pass

    def ratio(self, x_RHD: Tensor, row_R: Tensor, seeds: Sequence[int], now_R: Tensor,
              context_RC: Tensor | None = None) -> Tensor:
        self.now_R = now_R
        return 9 / row_R


def planner(history: int, horizon: int = 8, stride: int = 1, **changes: Any) -> tuple[Planner, GoesOn]:
    model: Any = GoesOn(TrajectorySpec(1, 1, horizon, stride))
    agent = Planner(model, replace(ACTS, history=history, **changes), -HIGH, HIGH)
    agent.reset(None, [0, 1])
    return agent, model


@given(st.integers(0, 4), st.integers(1, 3), st.integers(1, 12))
def test_the_past_is_the_last_rows_that_the_episode_has(rows: int, stride: int, steps: int) -> None:
    """After t steps, timestep r of p holds the observation and the action of (p - r) strides ago."""
    history = History(TrajectorySpec(1, 1, 8, stride), rows, 2, CPU)
    for t in range(steps):
        history.add(torch.tensor([[t], [-t]]), torch.tensor([[t + 0.5], [0]]))
    past = history.of(torch.tensor([True, False]))
    p = min(steps // stride, rows)
    assert past.now_B.tolist() == [p] and past.x_BKD.shape == (1, rows, 2)
    assert past.x_BKD[0, :p].tolist() == [[t, t + 0.5] for t in range(steps - p * stride, steps, stride)]


def test_the_model_is_conditioned_on_the_whole_past_and_the_present_observation() -> None:
    agent, model = planner(history=2)
    done = []
    for t in range(4):
        done.append(agent.act(torch.tensor([[10.0 + t / 10], [20.0]]))[0, 0].item())
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
    """A past without new information changes no action, neither of a plan nor of what is left of one."""
    acted = []
    for history in (0, 3):
        select: Any = {"select": "value", "shifted": True} if shifted else {}
        model: Any = GoesOn(TrajectorySpec(1, 1, 9, 2))
        critic: Any = type("First", (), {"plan_spec": model.spec, "__call__": lambda self, x: -torch.arange(len(x))})()
        agent = Planner(model, replace(ACTS, replan=3, history=history, **select), -HIGH, HIGH, critic=critic)
        acted.append([agent.act(torch.full((1, 1), 0.5 * t))[0, 0].item() for t in range(12)])
        assert agent.last.x_BNHD[0, 0, :, 0].tolist() == [4.5 + min(h, 8 - history) for h in range(9)]
    assert acted[0] == acted[1] == [5.0 * t for t in range(12)]


def test_a_fixed_arrival_is_at_the_model_s_last_row_however_long_the_past() -> None:
    agent, model = planner(history=2, goal_dims=(0,))
    for t in range(4):
        agent.act(torch.full((2, 1), float(t)), torch.full((2, 1), 50.0))
        assert model.asked.mask_BHD[0, :, 0].nonzero().flatten().tolist() == [*range(min(t, 2) + 1), 7]
        assert model.asked.values_BHD[0, 7, 0] == 50 and agent.last.row_BN.tolist() == [[7 - min(t, 2)]] * 2


def test_every_candidate_has_the_past_of_its_environment() -> None:
    """Three environments began at different times, and plan towards goals with what is left of their plans."""
    model, trusting = GoesOn(TrajectorySpec(1, 1, 8)), Trusting()
    agent = Planner(model, PlannerConfig(replan=2, lookahead=1, actions="joint", history=3, candidates=2, shifted=True,  # type: ignore[arg-type]
                                         goal_dims=(0,)), -HIGH, HIGH, trust=trusting)
    for t in range(6):
        agent.reset(torch.tensor([False, t == 2, t == 4]))
        agent.act(torch.full((3, 1), float(t)), torch.full((3, 1), 50.0))
    now_B, (x_BNHD, row_BN) = torch.tensor([3, 2, 0]), (agent.last.x_BNHD, agent.last.row_BN)
    assert trusting.now_R.tolist() == now_B.repeat_interleave(row_BN.shape[1]).tolist()
    asked = model.asked.mask_BHD[..., 0].view(*row_BN.shape, 8)
    for b, now in enumerate(now_B.tolist()):
        assert (row_BN[b, 1:] <= 7 - now).all() and asked[b, :, : now + 1].all()
        goal_N = x_BNHD[b, torch.arange(row_BN.shape[1]), row_BN[b], 0]
        assert (goal_N == 50).all() and (x_BNHD[b, :, 0, 0] == 4).all()
    assert asked[0, 0, 4:].any() and model.asked.mask_BHD[..., 1].view(*row_BN.shape, 8)[0, 0, 4]  # what is left


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4))
def test_what_is_left_of_a_plan_arrives_where_it_still_can(rows: int, stride: int, replan: int) -> None:
    model: Any = GoesOn(TrajectorySpec(1, 1, 9, stride))
    agent = Planner(model, PlannerConfig(replan=replan, lookahead=1, actions="joint", history=rows, shifted=True,
                                         goal_dims=(0,)), -HIGH, HIGH, trust=Trusting())
    for t in range(12):
        agent.act(torch.full((1, 1), float(t)), torch.full((1, 1), 50.0))
        x_NHD, row_N = agent.last.x_BNHD[0], agent.last.row_BN[0]
        assert (x_NHD[torch.arange(len(row_N)), row_N, 0] == 50).all()


def test_observations_may_be_of_doubles() -> None:
    agent, _ = planner(history=1)
    acts = [agent.act(torch.full((2, 1), float(t), dtype=torch.float64)) for t in range(3)]
    assert [act.dtype for act in acts] == [torch.float32] * 3 and acts[2].tolist() == [[20], [20]]


def test_moved_rows_stay_inside() -> None:
    x = torch.arange(5)[None].expand(3, -1)
    assert shift_time(x, torch.tensor([0, 3, -2])).tolist() == [[0, 1, 2, 3, 4], [3, 4, 4, 4, 4], [0, 0, 0, 1, 2]]


def test_what_a_history_does_not_go_with_is_refused() -> None:
    with pytest.raises(ValueError, match=r"history is 7 of 8 timesteps, which leaves 0 environment steps .* need 1;"):
        planner(history=7)
    with pytest.raises(ValueError, match=r"which leaves 5 environment steps to plan, and replan and lookahead need "
                                         r"6"):
        planner(history=2, replan=7)
    planner(history=2, replan=6)
    with pytest.raises(ValueError, match=r"the first timesteps of a planner with history are in the past"):
        Planner(GoesOn(TrajectorySpec(1, 1, 8)), replace(ACTS, history=2), -HIGH, HIGH, guide=lambda x: x[:, 0, 0])  # type: ignore[arg-type]
    critic: Any = type("Critic", (), {"plan_spec": TrajectorySpec(1, 1, 8)})()
    with pytest.raises(ValueError, match=r"at most 4 is expected for a horizon of 8 timesteps and a history of 2"):
        Planner(planner(0)[1], replace(ACTS, history=2, replan=5, shifted=True, select="value"), -HIGH, HIGH,  # type: ignore[arg-type]
                critic=critic)
    model: Any = GoesOn(TrajectorySpec(1, 1, 4, 1, (1, 2, 4)))
    with pytest.raises(ValueError, match=r"history needs evenly spaced timesteps"):
        Planner(model, replace(ACTS, history=1), -HIGH, HIGH)
    with pytest.raises(ValueError, match=r"history is 2 timesteps, and an exported planner remembers nothing"):
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
        agent = Planner(model, replace(ACTS, actions="inverse", history=history), -HIGH, HIGH, inverse=inverse)
        agent.reset(None, range(40))
        acts = [agent.act(d_B1 * t) for t in range(3)]
        right.append((acts[-1].sign() == d_B1).float().mean().item())
    assert right[1] > 0.95 > 0.7 > right[0]
