"""`TrajectorySpec` and `Condition`: the layout, and what is known."""

from dataclasses import replace

import pytest
import torch

from gentraj.trajectory import Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8, stride=2)


def test_split_inverts_join() -> None:
    obs, act = torch.randn(4, 8, 3), torch.randn(4, 8, 2)
    back = SPEC.split(SPEC.join(obs, act))
    assert torch.equal(back[0], obs) and torch.equal(back[1], act)


@pytest.mark.parametrize("field", ["obs_dim", "horizon", "stride"])
def test_a_layout_without_entries_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0; give at least 1"):
        TrajectorySpec(**{"obs_dim": 3, "act_dim": 2, "horizon": 8, field: 0})


def test_each_builder_marks_exactly_what_it_was_given() -> None:
    unknown = Condition.unknown(SPEC, 4)
    cases = {
        "start": (unknown.with_obs(0, torch.ones(4, 3)), 4 * 3),
        "goal at one row each": (unknown.with_obs(torch.tensor([1, 2, 3, 7]), torch.ones(4, 2), dims=(0, 1)), 4 * 2),
        "goal at the last row": (unknown.with_obs(-1, torch.ones(2), dims=(0, 2)), 4 * 2),
        "actions": (unknown.with_actions(torch.ones(4, 5, 2)), 4 * 5 * 2),
        "prefix": (unknown.with_prefix(torch.ones(4, 3, 5)), 4 * 3 * 5),
    }
    for name, (condition, count) in cases.items():
        assert int(condition.mask_BHD.sum()) == count, name
        assert torch.equal(condition.values_BHD, condition.mask_BHD.float()), name


def test_a_goal_lies_at_its_own_row() -> None:
    rows = torch.tensor([1, 7])
    condition = Condition.unknown(SPEC, 2).with_obs(rows, torch.tensor([[1.0], [2.0]]), dims=(1,))
    assert condition.values_BHD[0, 1, 1] == 1 and condition.values_BHD[1, 7, 1] == 2
    assert condition.mask_BHD.nonzero().tolist() == [[0, 1, 1], [1, 7, 1]]


def test_a_builder_leaves_the_condition_it_started_from_alone() -> None:
    unknown = Condition.unknown(SPEC, 1)
    unknown.with_obs(0, torch.ones(3))
    assert not unknown.mask_BHD.any()


def test_what_does_not_fit_is_refused_by_name() -> None:
    unknown = Condition.unknown(SPEC, 2)
    with pytest.raises(ValueError, match=r"shape \(4,\); a number for each of the entries \[0, 1, 2\] is"):
        unknown.with_obs(0, torch.zeros(4))
    with pytest.raises(ValueError, match=r"entries \[-1\] were named; a timestep has the entries 0 to"):
        unknown.with_obs(0, torch.zeros(1), dims=[-1])
    with pytest.raises(ValueError, match="timestep 8 is outside the horizon of 8 timesteps"):
        unknown.with_obs(8, torch.zeros(3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        unknown.with_obs(0, torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="NaN or infinite"):
        replace(unknown.with_obs(0, torch.zeros(3)), values_BHD=torch.full((2, 8, 5), torch.inf))
    with pytest.raises(ValueError, match=r"values_BHD has shape \(2, 8, 4\).*need \(2, 8, 5\)"):
        Condition(SPEC, torch.zeros(2, 8, 4), torch.zeros(2, 8, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"torch\.bool"):
        Condition(SPEC, torch.zeros(2, 8, 5), torch.zeros(2, 8, 5))


def test_repeat_keeps_the_samples_of_one_condition_together() -> None:
    condition = Condition.unknown(SPEC, 2).with_obs(0, torch.tensor([[1.0] * 3, [2.0] * 3])).repeat(3)
    assert condition.values_BHD[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
