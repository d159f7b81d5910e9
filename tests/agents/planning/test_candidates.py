"""The planner without goals: several candidates, a critic, guidance, and what is left of the last plan."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from planners import KnownModel, KnownValue, Walk, planner, straight
from torch import Tensor

from gentraj.agents.planning.plan_critic import PlanCritic, PlanCriticConfig
from gentraj.agents.planning.planner import Planner
from gentraj.agents.planning.sampler import PlannerConfig, PlanSampler, choice, level_specs, seeds_of
from gentraj.diffusion.guidance import ClassifierFree, Guided
from gentraj.models.sampling import Preference
from gentraj.randomness import unfold
from gentraj.trajectory import Condition, TrajectorySpec

FREE = PlannerConfig(arrival="fixed", replan=1, lookahead=1, actions="joint", select="value")
SHORT = TrajectorySpec(obs_dim=1, act_dim=1, horizon=4)



def valued(model: Any, value: Any, **changes: Any) -> Planner:
    return planner(model, replace(FREE, **changes), 1, 9, critic=KnownValue(value, model.spec))


def test_the_first_of_many_candidates_is_the_only_one_of_one() -> None:
    samplers = [valued(Walk(SHORT), lambda x: x[:, 0, 1], candidates=n).sampler for n in (1, 5)]
    one, many = (sampler.sample(torch.zeros(3, 1), None, [7, 8, 9]) for sampler in samplers)
    assert many.x_BNHD.shape == (3, 5, 4, 2) and torch.equal(many.x_BNHD[:, :1], one.x_BNHD)
    assert many.value_BN is not None and torch.equal(many.value_BN.argmax(1), many.chosen_B)
    assert seeds_of(7, 3, 1) == unfold(3, 7) == seeds_of(7, 3, 5)[::5]


INF = float("inf")


@pytest.mark.parametrize(("ratio", "value", "chosen"), [
    ([2.0, 1.0, 0.5, 0.1], None, 1),  # the earliest trusted, and the first of equals
    ([2.0, 1.0, 0.5, 0.1], [9.0, 1.0, 3.0, 2.0], 2),  # of the trusted the one of most value
    ([2.0, 1.5, INF, 1.2], [9.0, 1.0, 3.0, 2.0], 3), ([2.0, 1.5, INF, 1.2], None, 3),  # the most trusted
    ([INF] * 4, None, 0), ([0.0] * 4, [1.0, 5.0, 5.0, 2.0], 1)])
def test_the_choice_among_candidates(ratio: list[float], value: list[float] | None, chosen: int) -> None:
    value_BN = None if value is None else torch.tensor([value])
    assert choice(torch.tensor([[2, 4, 4, 6]]), torch.tensor([ratio]), value_BN).tolist() == [chosen]


def test_joint_actions_begin_with_the_plan_s_first_one() -> None:
    """Timestep h of a plan holds the action that is taken at its observation."""
    agent = valued(Walk(SHORT), lambda x: x[:, 0, 1], replan=3)
    acts = torch.stack([agent.act(torch.zeros(2, 1)) for _ in range(3)], 1)
    assert torch.equal(acts[..., 0], agent.last.chosen()[0][:, :3, 1])


@pytest.mark.parametrize(("guidance", "kinds"), [("classifier-free", [ClassifierFree, Preference]),
                                                 ("value", [Preference, Guided])])
def test_plans_are_guided_by_the_context_or_the_critic_beside_a_user_s_guide(guidance: Any, kinds: list[type]) -> None:
    critic, model = PlanCritic.blank(SHORT, PlanCriticConfig(width=16, depth=1)), Walk(SHORT)
    config = replace(FREE, context=(2.0,), guidance=guidance, scale=3.0)
    PlanSampler(model, config, critic=critic, guide=lambda x: x[:, 1, 0]).sample(torch.ones(1, 1), None, [0])
    assert [type(one) for one in model.guide] == kinds
    if guidance == "value":
        assert (model.guide[1].guide, model.guide[1].scale) == (critic.relative, 3.0)


def sure(condition: Condition, seeds: Sequence[int]) -> Tensor:
    """Plans whose last timestep is 4 more than the first, or what is known of it."""
    spec, start = condition.spec, condition.values_BHD[:, :1, :1]
    end = torch.where(condition.mask_BHD[:, -1:, :1], condition.values_BHD[:, -1:, :1], start + 4)
    share = torch.linspace(0, 1, spec.horizon)[:, None]
    return spec.join(torch.lerp(start, end, share), (end - start) / 8 + share if spec.act_dim else None)



def test_a_plan_is_tracked_to_its_end_by_a_pd_controller() -> None:
    """One plan, from rest at 0 to (8, 8) in 8 steps; then the goal at rest."""
    def plan(condition: Condition, seeds: Sequence[int]) -> Tensor:
        x = straight(condition, seeds)
        x[:, 1:, 2:] = 1
        return x

    model = KnownModel(TrajectorySpec(4, 0, 3, stride=4), plan)
    config = PlannerConfig("fixed", replan=20, lookahead=1, actions="track", goal_dims=(0, 1), rest_dims=(2, 3))
    agent = planner(model, config, 2)
    goal, at_rest, moving = torch.full((1, 2), 8.0), torch.zeros(1, 4), torch.tensor([[2.0, 3.0, 0.5, 1.5]])
    assert agent.act(at_rest, goal).tolist() == [[1.25, 1.25]]  # a step ahead it is at 1, with a velocity of 1 / 4
    assert agent.act(moving, goal).tolist() == [[2 - 2 + 0.5 - 0.5, 2 - 3 + 0.5 - 1.5]]
    for _ in range(5):
        agent.act(moving, goal)
    assert agent.act(moving, goal).tolist() == [[8 - 2 - 0.5, 8 - 3 - 1.5]] == agent.act(moving, goal).tolist()
    assert model.network_calls == 1
    with pytest.raises(ValueError, match=r"a position and a velocity for each of 2 actions; .*rest_dims \(\)"):
        planner(model, replace(config, rest_dims=()), 2)


def coarse_to_fine(*finer: TrajectorySpec, **changes: Any) -> Planner:
    config = replace(FREE, select="trust", **changes)
    return planner(KnownModel(TrajectorySpec(1, 0, 3, stride=8), sure), config, 1,
                   finer=[KnownModel(fine, sure) for fine in finer])


@pytest.mark.parametrize("factors", [(8,), (2, 4), (2, 2, 2)])
@pytest.mark.parametrize("replan", [5, 12])
def test_finer_models_fill_in_as_many_legs_of_a_plan_as_are_carried_out(factors: tuple[int, ...], replan: int) -> None:
    """A plan goes from 1 to 5 in two legs of 8 steps; the actions of a leg are 2 / 8 and the fraction of it."""
    levels = level_specs(TrajectorySpec(1, 0, 3, stride=8), factors, act_dim=1)
    agent = coarse_to_fine(*levels, replan=replan)
    acts = [agent.act(torch.tensor([[1.0], [2.0]]))[:, 0] for _ in range(replan)]
    first: Any = agent.sampler.finer[0]
    assert first.asked.batch == 2 * (1 if replan == 5 else 2)
    torch.testing.assert_close(agent.target_BTD[0, :replan, 0], 1 + torch.arange(1.0, replan + 1) / 4)
    if len(factors) == 1:
        torch.testing.assert_close(torch.stack(acts)[:, 0], torch.arange(replan) % 8 / 8 + 0.25)


def test_finer_timesteps_divide_the_stride() -> None:
    for factors in ((3,), (2, 8)):
        with pytest.raises(ValueError, match="whose product divides the stride"):
            level_specs(TrajectorySpec(1, 0, 3, stride=8), factors, 1)
