"""A planner with a history: how its model is conditioned on the past, where its plans begin, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planners import KnownModel, KnownTrust
from planners import planner as made
from torch import Tensor

from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig
from gentraj.trajectory import Condition, TrajectorySpec

ACTS = PlannerConfig("fixed", replan=1, lookahead=1, actions="joint")
SPEC = TrajectorySpec(1, 1, 8)
ARRIVES = replace(ACTS, arrival="earliest", goal_dims=(0,))


def goes_on(condition: Condition, seeds: Sequence[int]) -> Tensor:
    """Plans with s' = s + 1 in each timestep and a = 10 s."""
    x = condition.values_BHD.clone()
    for b, known_H in enumerate(condition.mask_BHD[..., 0]):
        last = int(known_H.nonzero().max()) if condition.mask_BHD[b, 0, 0] else 0
        obs_H1 = (x[b, last, 0] + torch.arange(len(known_H)) - last)[:, None]
        x[b] = torch.where(condition.mask_BHD[b], x[b], torch.cat([obs_H1, 10 * obs_H1], 1))
    return x


def planner(spec: TrajectorySpec = SPEC, base: PlannerConfig = ACTS, guide: Any = None,
            **changes: Any) -> tuple[Planner, KnownModel]:
    model = KnownModel(spec, goes_on)
    return made(model, replace(base, **changes), 1, trust=KnownTrust(9), guide=guide), model


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
    agent.reset(mask_B=torch.tensor([True, False]))
    agent.act(torch.tensor([[3.0], [4.0]]))
    assert model.asked.mask_BHD[..., 0].sum(1).tolist() == [1, 3]


def test_plans_begin_at_the_present() -> None:
    """A past without new information changes no action."""
    acted, spec = [], TrajectorySpec(1, 1, 9, 2)
    for history in (0, 3):
        agent, _ = planner(spec, replan=3, history=history)
        acted.append([agent.act(torch.full((1, 1), 0.5 * t))[0, 0].item() for t in range(12)])
        assert agent.last.x_BNHD[0, 0, :, 0].tolist() == [4.5 + min(h, 8 - history) for h in range(9)]
    assert acted[0] == acted[1] == [5.0 * t for t in range(12)]


@settings(max_examples=10)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4))
def test_a_plan_arrives_where_it_still_can_after_the_past(history: int, stride: int, replan: int) -> None:
    agent, _ = planner(TrajectorySpec(1, 1, 9, stride), ARRIVES, replan=replan, history=history)
    for t in range(12):
        agent.act(torch.full((1, 1), float(t)), torch.full((1, 1), 50.0))
        x_NHD, arrival_N = agent.last.x_BNHD[0], agent.last.arrival_step_BN[0]
        assert (x_NHD[torch.arange(len(arrival_N)), arrival_N, 0] == 50).all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"history": 7}, "leaves 0 .* need 1;"),
    ({"history": 2, "guide": lambda x: x[:, 0, 0]}, "guide a planner with a history of 0")])
def test_what_a_history_does_not_go_with_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner(**changes)


def test_a_history_is_for_no_exported_planner() -> None:
    with pytest.raises(ValueError, match="history is 2 timesteps"):
        planner(history=2)[0].decide(torch.zeros(1, 1), None, [0])
