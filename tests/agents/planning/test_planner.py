"""The planner: which plan it takes, what its targets are, and that environments do not influence each other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gentraj.agents.planning.execution import Past, targets
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.planner import Planner, PlannerConfig
from gentraj.agents.planning.trust import Trust
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.networks import TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.trajectory import DEFAULT_OPTIONS, Batch, Condition, SamplingOptions, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=4, act_dim=0, horizon=8, stride=4)
CONFIG = PlannerConfig(goal_dims=(0, 1), rest_dims=(2, 3), arrival_thresholds=(), lookahead=6, replan=3)
LOW, HIGH = -np.ones(2, np.float32), np.ones(2, np.float32)


class StraightLine:
    """A model whose plans go straight from the start to the goal and stay there; later timesteps hold 9."""

    spec, network_calls, device = SPEC, 0, torch.device("cpu")

    def sample(self, condition: Condition, num_samples: int = 1, *, guide: object = None, observe: object = None,
               seed: object = 0, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        self.network_calls += 1
        x = torch.full_like(condition.values_BHD, 9.0)
        for b, mask_HD in enumerate(condition.mask_BHD):
            row = int(mask_HD[1:, 0].float().argmax()) + 1 if mask_HD[1:, 0].any() else SPEC.horizon - 1
            start, end = condition.values_BHD[b, 0], condition.values_BHD[b, row].clone()
            x[b, : row + 1] = torch.lerp(start, end, torch.linspace(0, 1, row + 1)[:, None])
        return x[:, None]


class KnownTrust(Trust):
    """Trusts arrivals at `first` and later ones."""

    def __init__(self, first: int):
        self.first = first

    def ratio(self, x_RHD: Tensor, row_R: Tensor, seeds: Sequence[int], now_R: Tensor,
              context_RC: Tensor | None = None) -> Tensor:
        return self.first / row_R


def toward() -> InverseDynamics:
    """Acts along the displacement of the first two entries, so that targets can be read off the actions."""
    inverse = InverseDynamics.blank(4, 2, InverseDynamicsConfig(lookahead=16))
    inverse.forward = lambda obs, target, k: (target - obs)[:, :2]  # type: ignore[method-assign]
    return inverse


def planner(first: int = 1, **changes: object) -> Planner:
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]
    return Planner(StraightLine(), config, LOW * 100, HIGH * 100, trust=KnownTrust(first), inverse=toward())  # type: ignore[arg-type]


OBS, GOAL = torch.zeros(1, 4), torch.tensor([[8.0, 0.0]])


def test_the_earliest_trusted_arrival_is_taken() -> None:
    plans = planner(first=4).propose(OBS, GOAL, [0])
    assert plans.row_BN.tolist() == [[2, 4, 6]]
    assert plans.chosen()[1].tolist() == [4]


def test_a_plan_of_two_timesteps_arrives_at_the_last_one() -> None:
    """No timestep was tried, and the planner failed."""
    agent = planner()
    agent.model.spec = replace(SPEC, horizon=2)  # type: ignore[misc]
    assert agent._rows(OBS, GOAL, Past.none(agent.spec, 1, torch.device("cpu"))).tolist() == [[1]]


def test_with_none_trusted_the_most_trusted_is_taken() -> None:
    plans = planner(first=100).propose(OBS, GOAL, [0])
    assert (plans.ratio_BN > 1).all() and plans.chosen()[1].tolist() == [6]


def test_a_fixed_arrival_is_the_last_row() -> None:
    plans = planner(arrival="fixed").propose(OBS, GOAL, [0])
    assert plans.row_BN.tolist() == [[7]] and plans.x_BNHD[0, 0, 7, 0] == 8


def test_the_target_lies_on_the_plan_between_its_rows() -> None:
    # The plan reaches 8 at row 4 of stride 4: half a unit a step. Six steps ahead of a standing start that is 3.
    agent = planner(first=4)
    actions = [agent.act(OBS, GOAL)[0, 0].item() for _ in range(3)]
    assert actions == pytest.approx([3.0, 3.5, 4.0])


def test_after_the_arrival_the_goal_is_held_at_rest() -> None:
    agent = planner(first=2, lookahead=16)  # the plan arrives after 8 steps and says 9 for what follows
    agent.act(OBS, GOAL)
    assert torch.equal(agent.target_BTD[0, 8:], torch.tensor([8.0, 0, 0, 0]).expand(11, 4))


def test_at_rest_nothing_is_done() -> None:
    spec = TrajectorySpec(2, 1, 5)
    x_BHD = torch.tensor([1.0, 2.0, 3.0]).expand(1, 5, 3)  # (position, velocity, action)
    target_BTD = targets(spec, x_BHD, 5, torch.tensor([2]), rest_dims=(1,))
    assert target_BTD[0].tolist() == [[1, 2, 3], [1, 0, 3], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_near_the_goal_it_is_held_without_a_plan() -> None:
    agent = planner(hold_radius=10.0)
    assert agent.act(OBS, GOAL)[0].tolist() == [8.0, 0.0] and agent.network_calls == 0


def test_a_goal_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="a goal of 3 numbers was given to a planner whose goals are 2 entries"):
        planner().act(OBS, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="1 goals were given for 2 observations; give one for each"):
        planner().act(torch.zeros(2, 4), GOAL)


def test_it_replans_only_when_due_or_reset() -> None:
    agent = planner()
    for _ in range(6):
        agent.act(OBS, GOAL)
    assert agent.network_calls == 2
    agent.reset(torch.tensor([True]), [0])
    agent.act(OBS, GOAL)
    assert agent.network_calls == 3


def test_a_goal_that_moves_is_planned_for_at_once() -> None:
    """Unless it stays within `hold_radius` of the one that was planned for, however often it is measured anew."""
    agent = planner(hold_radius=0.5, replan=100)
    for moved, calls in ((0.0, 1), (0.3, 1), (0.35, 1), (0.6, 2), (0.3, 2), (-3.0, 3), (-3.0, 3)):
        agent.act(OBS, GOAL + moved)
        assert agent.network_calls == calls, moved
    agent.act(torch.zeros(2, 4), GOAL.expand(2, 2))
    before = agent.target_BTD.clone()
    agent.act(torch.zeros(2, 4), torch.cat([GOAL, -GOAL]))
    assert torch.equal(agent.target_BTD[0], before[0]) and torch.equal(agent.target_BTD[1], -before[1])
    assert agent.age_B.tolist() == [2, 1]


def test_a_reset_drops_the_plans_of_the_masked_environments_only() -> None:
    agent = planner()
    obs, goal = torch.zeros(2, 4), GOAL.expand(2, 2)
    agent.act(obs, goal)
    before = agent.target_BTD.clone()
    agent.reset(torch.tensor([False, True]), [0, 0])
    agent.act(obs, torch.cat([GOAL, -GOAL]))
    assert torch.equal(agent.target_BTD[0], before[0]) and not torch.equal(agent.target_BTD[1], before[1])


def test_actions_lie_inside_the_action_space() -> None:
    agent = Planner(StraightLine(), CONFIG, LOW, HIGH, trust=KnownTrust(2), inverse=toward())  # type: ignore[arg-type]
    assert agent.act(OBS, GOAL).abs().max() == 1


def test_what_the_settings_need_must_be_there() -> None:
    with pytest.raises(ValueError, match="actions is 'joint', which needs a model of observations and actions"):
        planner(actions="joint")
    with pytest.raises(ValueError, match="actions is 'inverse', which needs inverse dynamics"):
        Planner(StraightLine(), CONFIG, LOW, HIGH, trust=KnownTrust(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="arrival='earliest' needs a trust score"):
        Planner(StraightLine(), CONFIG, LOW, HIGH, inverse=toward())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lookahead is 17; the inverse dynamics were trained to look 16"):
        planner(lookahead=17)


@pytest.mark.parametrize("wrong", [{"replan": 0}, {"trust": 1.5}, {"temperature": -1.0},
                                   {"arrival_thresholds": (0.0, 1.0)},
                                   {"hold_radius": float("nan")}, {"candidates": 0}, {"scale": float("inf")}])
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"PlannerConfig.{next(iter(wrong))} (is|are) "):
        PlannerConfig(**wrong)  # type: ignore[arg-type]


def diffusion(act_dim: int = 0) -> Diffusion:
    torch.manual_seed(0)
    spec = replace(SPEC, act_dim=act_dim)
    return Diffusion(spec, DiffusionConfig(network=TemporalUNetConfig(8, (1, 2))), Normalizer.identity(spec.dim))


def reference(dim: int = 4) -> Batch:
    x = torch.randn(64, 8, dim, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.ones(64, 8, dim, dtype=torch.bool))


@pytest.mark.usefixtures("batch_invariance")
@pytest.mark.parametrize("count", [1, 3, 20])
def test_an_environment_does_not_feel_those_beside_it(count: int) -> None:
    model, inverse = diffusion(), InverseDynamics.blank(4, 2, InverseDynamicsConfig(lookahead=6))
    obs, goal = (torch.randn(20, n, generator=torch.Generator().manual_seed(n)) for n in (4, 2))
    played = []
    for batch in (20, count):
        agent = Planner(model, CONFIG, LOW, HIGH, trust=Trust(model, reference(), 0.98), inverse=inverse)
        agent.reset(None, list(range(batch)))
        played.append(torch.stack([agent.act(obs[:batch], goal[:batch]) for _ in range(7)])[:, :count])
    torch.testing.assert_close(played[0], played[1], rtol=1e-5, atol=1e-5)


def test_joint_actions_are_those_of_the_plan() -> None:
    model = diffusion(act_dim=2)
    agent = Planner(model, replace(CONFIG, actions="joint"), LOW, HIGH, trust=Trust(model, reference(6), 0.98))
    act = agent.act(OBS, GOAL)
    assert torch.equal(act, agent.target_BTD[:, 0, 4:].clamp(-1, 1))


def test_without_a_goal_the_plan_is_free() -> None:
    model = diffusion()
    inverse = InverseDynamics.blank(4, 2, InverseDynamicsConfig(lookahead=6))
    agent = Planner(model, CONFIG, LOW, HIGH, trust=Trust(model, reference(), 0.98), inverse=inverse)
    assert agent.act(OBS).shape == (1, 2) and agent.network_calls == 1 + CONFIG.steps  # one to calibrate trust


def test_trust_is_one_at_the_quantile_of_data_for_each_row() -> None:
    model, data = diffusion(), reference()
    trust = Trust(model, data, 0.9, history=2)
    for now, row in ((0, 1), (0, 4), (0, 7), (1, 6), (2, 1), (2, 5)):
        ratio = trust.ratio(data.x_BHD, torch.full((64,), row), range(64), torch.full((64,), now))
        assert (ratio <= 1).float().mean().item() == pytest.approx(0.9, abs=0.02)


def test_what_has_happened_speaks_for_no_plan() -> None:
    """Scores count from the present on, and so do those of the data."""
    known: Any = type("Known", (), {"spec": SPEC, "ood_score": lambda self, x, start, seeds: x[..., 0].abs()})()
    data, now, row = reference(), torch.tensor([0, 1, 3]), torch.tensor([4, 2, 4])
    ratio = Trust(known, data, 0.5, history=3).ratio(data.x_BHD[:3], row, range(3), now)
    for i, (p, j) in enumerate(zip(now.tolist(), row.tolist(), strict=True)):
        error_W = data.x_BHD[:, p : p + j + 1, 0].abs().sum(1) / j
        torch.testing.assert_close(ratio[i], error_W[i] / error_W.quantile(0.5))


def test_trust_knows_the_contexts_of_data_and_of_plans() -> None:
    """The score is the distance to the context here, so that data and plans score 0 only with their own."""
    known: Any = type("Known", (), {"spec": SPEC, "ood_score": lambda self, x, start, seeds: (
        1 + (x[..., 0] - start.context_BC).abs())})()
    data = reference()
    data = replace(data, x_BHD=data.x_BHD[..., :1].mean(1, keepdim=True).expand_as(data.x_BHD))
    contexts, row, now = data.x_BHD[:, 0, :1], torch.full((64,), 5), torch.zeros(64, dtype=torch.long)
    trust = Trust(known, replace(data, context_BC=contexts), 0.5)
    assert trust.ratio(data.x_BHD, row, range(64), now, contexts).tolist() == pytest.approx([1.0] * 64)
    assert (trust.ratio(data.x_BHD, row, range(64), now, contexts + 1) > 1.5).all()


def test_padding_does_not_calibrate_trust() -> None:
    model, data = diffusion(), reference()
    data.mask_BHD[:32, 5:] = False
    spoiled = Batch(data.x_BHD.clone(), data.mask_BHD)
    spoiled.x_BHD[:32, 5:] = 1e3
    for row in (2, 4, 7):  # those before the padding too, of whose errors a network sees all rows
        rows = torch.full((32,), row)
        mine, theirs = (Trust(model, batch, 0.9).ratio(data.x_BHD[32:], rows, range(32), 0 * rows)
                        for batch in (data, spoiled))
        assert torch.equal(mine, theirs)


def test_each_arrival_has_its_candidates() -> None:
    plans = planner(first=4, candidates=3).propose(OBS, GOAL, [0])
    assert plans.row_BN.tolist() == [[2, 2, 2, 4, 4, 4, 6, 6, 6]] and plans.chosen_B.tolist() == [3]


def test_with_a_goal_the_rest_of_the_previous_plan_is_asked_to_arrive_when_it_did() -> None:
    agent = planner(first=1, shifted=True, replan=4)  # one row
    agent.reset(None, [0])
    obs, rows = torch.zeros(1, 4), []
    for _ in range(8):
        agent.act(obs, GOAL)
        rows.append(agent.last.row_BN[0].tolist())
    assert rows[0] == [2, 2, 4, 6] and rows[4] == [1, 2, 4, 6] and agent.last.chosen()[1].tolist() == [1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"select": "value"}, "select='value' needs a critic of plans"),
    ({"guidance": "value"}, "guidance='value' needs a critic of plans"),
    ({"target_return": "value"}, "target_return='value' needs a critic of plans"),
    ({"guidance": "classifier-free"}, "guidance='classifier-free' needs a context to amplify"),
    ({"arrival": "fixed", "candidates": 4}, "candidates=4 needs something to choose by"),
    ({"arrival": "fixed", "shifted": True}, "shifted=True needs something to choose by"),
    ({"rest_dims": (2, 7)}, r"rest_dims are \(2, 7\); entries of an observation of width 4"),
    ({"goal_dims": (-1,)}, r"goal_dims are \(-1,\); entries of an observation of width 4"),
    ({"shifted": True, "replan": 25}, "shifted=True needs something left of a plan; replan is 25, at most 24")])
def test_settings_that_need_a_part_which_is_missing_say_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner(**changes)


def test_a_model_of_the_four_members_plans_and_one_that_cannot_judge_rows_is_not_trusted() -> None:
    """The planner needs neither a device nor a count of calls; trust needs ood_score and says so."""
    asked = []

    class FourMembers:
        spec = SPEC

        def sample(self, condition: Condition, num_samples: int = 1, *, guide: object = None, observe: object = None,
                   seed: object = 0, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
            asked.append(options)
            return torch.zeros_like(condition.values_BHD)[:, None]

    model: Any = FourMembers()
    config = replace(CONFIG, arrival="fixed", actions="track", steps=7, temperature=0.5)
    agent = Planner(model, config, LOW, HIGH, options=SamplingOptions("heun", eta=0.1))
    assert agent.act(OBS, GOAL).shape[0] == 1 and agent.network_calls == 0 and agent.device.type == "cpu"
    assert asked == [SamplingOptions("heun", steps=7, eta=0.1, temperature=0.5)]
    for other in (SamplingOptions(steps=2), SamplingOptions(temperature=0.7)):
        with pytest.raises(ValueError, match="were given to a planner, which has its own settings of both; change"):
            Planner(model, config, LOW, HIGH, options=other)
    reference = Batch(torch.zeros(2, SPEC.horizon, SPEC.dim), torch.ones(2, SPEC.horizon, SPEC.dim, dtype=torch.bool))
    with pytest.raises(ValueError, match="FourMembers has no ood_score, which trust needs from a model"):
        Trust(model, reference, 0.98)
