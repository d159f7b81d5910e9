"""The planner: which plan it takes, what its targets are, and that environments do not influence each other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planners import KnownModel, KnownTrust, reference, straight
from planners import planner as made
from torch import Tensor

from gentraj.agents.memory import LastPlan
from gentraj.agents.planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, Plans
from gentraj.agents.planning.tracker import PlanTracker
from gentraj.agents.planning.trust import Trust
from gentraj.constraints import Circle
from gentraj.diffusion import Diffusion, DiffusionConfig
from gentraj.diffusion.guidance import Constrained
from gentraj.networks import ResidualMLPConfig
from gentraj.normalize import Normalizer
from gentraj.randomness import Seeds, as_noise
from gentraj.trajectory import Batch, Condition, SamplingOptions, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=4, act_dim=0, horizon=8, stride=4)
CONFIG = PlannerConfig(goal_dims=(0, 1), rest_dims=(2, 3), arrival_thresholds=(), lookahead=6, replan=3)
OBS, GOAL = torch.zeros(1, 4), torch.tensor([[8.0, 0.0]])



def inverse(displacement: bool = True) -> InverseDynamics:
    """Acts along the displacement of the first two entries, so that targets can be read off the actions."""
    found = InverseDynamics.blank(4, 2, InverseDynamicsConfig(lookahead=16, width=8))
    if displacement:
        found.forward = lambda obs, target, k: (target - obs)[:, :2]  # type: ignore[method-assign]
    return found


def planner(first: int = 1, spec: TrajectorySpec = SPEC, **changes: Any) -> Planner:
    config = replace(CONFIG, **changes)
    return made(KnownModel(spec, straight), config, 2, 100, trust=KnownTrust(first), inverse=inverse())


def plans_of(agent: Planner) -> Plans:
    return agent.sampler.sample(OBS, GOAL, [0])


@pytest.mark.parametrize(("first", "changes", "tried", "taken"), [
    (4, {}, [2, 4, 6], 4),  # the earliest that is trusted
    (100, {}, [2, 4, 6], 6),  # the most trusted where none is
    (1, {"arrival": "fixed"}, [7], 7),
    (4, {"candidates": 2}, [2, 2, 4, 4, 6, 6], 4),
    (1, {"spec": replace(SPEC, horizon=2)}, [1], 1)])  # two timesteps can only arrive at the last one
def test_the_arrivals_that_are_tried_and_the_one_that_is_taken(first: int, changes: dict[str, Any], tried: list[int],
                                                               taken: int) -> None:
    agent = planner(first=first, **changes)
    plans = plans_of(agent)
    assert plans.arrival_step_BN.tolist() == [tried] and plans.chosen()[1].tolist() == [taken]
    assert plans.x_BNHD[0, int(plans.chosen_B), taken, 0] == 8


class Proposed:
    """An arrival network that proposes an arrival for each threshold: ten times the threshold."""

    def propose(self, obs_BO: Tensor, goal_BG: Tensor, thresholds: tuple[float, ...]) -> Tensor:
        return (10 * torch.tensor(thresholds)).round().long().expand(len(obs_BO), -1)


class TrustsSome(KnownTrust):
    """Trusts plans to the goal at 8 if they arrive at timestep 4 or later, and all others."""

    def ratio(self, x_RHD: Tensor, arrival_step_R: Tensor, *others: Any) -> Tensor:
        near_R = x_RHD.gather(1, arrival_step_R[:, None, None].expand(-1, 1, 4))[:, 0, 0] < 8
        return torch.where(near_R, 1 / arrival_step_R, super().ratio(x_RHD, arrival_step_R, *others))


@pytest.mark.parametrize(("first", "sampled"), [(2, [2]), (4, [2, 6]), (100, [2, 6])])
def test_a_decision_is_the_choice_of_all_candidates_of_which_it_samples_few(first: int, sampled: list[int]) -> None:
    """The earliest of both environments, and all three of the one whose earliest is not trusted, each twice."""
    config, asked = replace(CONFIG, arrival_thresholds=(0.2, 0.4, 0.6), candidates=2), list[int]()

    def noisy(condition: Condition, seeds: Seeds) -> Tensor:
        asked.append(condition.batch)
        noise = as_noise(seeds, condition.batch).normal(8, 4)
        return torch.where(condition.mask_BHD, condition.values_BHD, noise)

    sampler = made(KnownModel(SPEC, noisy), config, 2, trust=TrustsSome(first), inverse=inverse(),
                   arrival=Proposed()).sampler
    obs_BO, goal_BG = torch.zeros(2, 4), torch.tensor([[3.0, 0.0], [8.0, 0.0]])
    decided = sampler.decide(obs_BO, goal_BG, [0, 1])
    assert asked == sampled
    every = sampler.sample(obs_BO, goal_BG, [0, 1])
    for one, other in zip(decided.chosen(), every.chosen(), strict=True):
        assert torch.equal(one, other)


def test_the_target_lies_on_the_plan_between_its_timesteps() -> None:
    """The plan reaches 8 at timestep 4 of stride 4: half a unit a step. Six steps ahead of a standing start is 3."""
    agent = planner(first=4)
    assert [agent.act(OBS, GOAL)[0, 0].item() for _ in range(3)] == pytest.approx([3.0, 3.5, 4.0])


def test_after_the_arrival_the_goal_is_held_at_rest() -> None:
    agent = planner(first=2, lookahead=16)  # the plan arrives after 8 steps and says 9 for what follows
    agent.act(OBS, GOAL)
    assert torch.equal(agent.target_BTD[0, 8:], torch.tensor([8.0, 0, 0, 0]).expand(11, 4))
    x_BHD = torch.tensor([1.0, 2.0, 3.0]).expand(1, 5, 3)  # (position, velocity, action)
    config = PlannerConfig(replan=4, lookahead=1, actions="joint", rest_dims=(1,))
    tracker = PlanTracker(TrajectorySpec(2, 1, 5), config, -np.ones(1), np.ones(1))
    target_BTD = tracker.targets(x_BHD, torch.tensor([2]))
    assert target_BTD[0].tolist() == [[1, 2, 3], [1, 0, 3], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_a_plan_is_followed_at_its_pace_until_it_arrives() -> None:
    agent = planner(arrival="fixed", replan=6, lookahead=5, pace=2.0)
    agent.act(OBS, torch.tensor([[14.0, 0.0]]))  # 7 timesteps, or 28 steps, in 14
    torch.testing.assert_close(agent.target_BTD[0, :, 0], torch.arange(1.0, 12))
    with pytest.raises(ValueError, match="set pace to 1"):
        planner(pace=2.0, actions="joint")


def test_near_the_goal_it_is_held_without_a_plan() -> None:
    agent = planner(hold_radius=10.0)
    assert agent.act(OBS, GOAL)[0].tolist() == [8.0, 0.0] and agent.network_calls == 0


def test_actions_lie_inside_the_action_space() -> None:
    agent = made(KnownModel(SPEC, straight), CONFIG, 2, 1, trust=KnownTrust(2), inverse=inverse())
    assert agent.act(OBS, GOAL).abs().max() == 1


def test_it_replans_only_when_due_or_reset() -> None:
    agent = planner()
    for _ in range(6):
        agent.act(OBS, GOAL)
    assert agent.network_calls == 2
    agent.reset([0], torch.tensor([True]))
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


def test_a_goal_of_another_width_or_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"goals of shape \(1, 3\) .*\(B, 2\)"):
        planner().act(OBS, torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"1 goals .* 2 observations"):
        planner().act(torch.zeros(2, 4), GOAL)


@pytest.mark.parametrize(("changes", "message"), [
    ({"actions": "joint"}, "needs a model of observations and actions"),
    ({"trust": None}, "needs a trust"), ({"inverse": None}, "needs inverse dynamics"),
    ({"lookahead": 17}, "lookahead is 17"), ({"select": "value"}, "needs a critic"),
    ({"guidance": "classifier-free"}, "needs a context"),
    ({"arrival": "fixed", "candidates": 4}, "something to choose by"), ({"rest_dims": (2, 7)}, "rest_dims"),
    ({"options": SamplingOptions(temperature=0.7)}, "0.7")])
def test_settings_that_need_a_part_which_is_missing_say_so(changes: dict[str, Any], message: str) -> None:
    components: dict[str, Any] = {"trust": KnownTrust(1), "inverse": inverse()}
    components |= {name: changes[name] for name in changes if name in ("trust", "inverse", "options")}
    settings = {name: value for name, value in changes.items() if name not in components}
    with pytest.raises(ValueError, match=message):
        made(KnownModel(SPEC, straight), replace(CONFIG, **settings), 2, **components)



def diffusion(act_dim: int = 0) -> Diffusion:
    torch.manual_seed(0)
    spec = replace(SPEC, act_dim=act_dim)
    return Diffusion(spec, DiffusionConfig(network=ResidualMLPConfig(8, 1, 0)), Normalizer.identity(spec.dim))


def test_an_environment_does_not_feel_those_beside_it() -> None:
    model, own = diffusion(), inverse(False)
    obs, goal = (torch.randn(20, n, generator=torch.Generator().manual_seed(n)) for n in (4, 2))
    played = []
    for batch in (20, 3):
        agent = made(model, CONFIG, 2, 1, trust=Trust(model, reference(), 0.98), inverse=own)
        agent.pad_batches()
        agent.reset(list(range(batch)))
        played.append(torch.stack([agent.act(obs[:batch], goal[:batch]) for _ in range(4)])[:, :3])
    assert torch.equal(*played)


def test_a_planner_that_avoids_obstacles_has_them_as_constraints() -> None:
    agent = planner()
    told = agent.avoiding([Circle((4.0, 0.5), 1.0, (0, 1))])
    told.act(OBS, GOAL)
    model = told.sampler.model
    assert isinstance(model, KnownModel) and isinstance(model.guide, Constrained) and agent.sampler.guide is None
    with pytest.raises(ValueError, match="guide already"):
        told.avoiding([Circle((4.0, 0.5), 1.0, (0, 1))])


def test_the_longest_step_of_a_plan_is_told_in_units_of_the_data_s() -> None:
    """Up to its arrival, in entries that move in the data, and of environments that have had a plan."""
    spec = TrajectorySpec(obs_dim=2, act_dim=1, horizon=4)
    last = LastPlan(spec, 3, torch.device("cpu"))
    x_BHD = torch.tensor([[0.0, 1.0, -2.0, 50.0], [0.0, 0.5, 0.0, 0.5]])[..., None].repeat(1, 1, 3)
    last.keep(torch.tensor([True, False, True]), x_BHD, torch.tensor([2, 3]))
    data = torch.tensor([0.0, 0.5, 1.0, 9.0])[:, None] * torch.tensor([1.0, 0.0, 20.0])
    mask_HD = torch.tensor([True, True, True, False])[:, None].repeat(1, 3)
    assert last.leaps(Batch(data[None], mask_HD[None])).tolist() == [6.0, 1.0]
    assert last.leaps(Batch(torch.ones(1, 4, 3), mask_HD[None])).tolist() == [0.0, 0.0]
