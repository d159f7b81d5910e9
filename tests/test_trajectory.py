"""`TrajectorySpec` and `Condition`: the layout, and what is known."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gentraj.trajectory import (
    Batch,
    Condition,
    Limits,
    TrajectorySpec,
    cat,
)

SPEC = TrajectorySpec(obs_dim=3, act_dim=2, horizon=8, stride=2)


def numbered(batch: int, first: int = 0) -> Condition:
    """Trajectory i has the start i, a goal of its own row, and the context (i, -i)."""
    i_B = torch.arange(first, first + batch).float()
    started = Condition.empty(SPEC, batch).with_obs(0, i_B[:, None].expand(batch, 3))
    goal = started.with_obs(1 + i_B.long() % 7, i_B[:, None], dims=(1,))
    return replace(goal, context_BC=torch.stack([i_B, -i_B], 1))


def rows(condition: Condition) -> list[int]:
    """The numbers of the trajectories, of which the values, the mask and the context tell the same."""
    i_B = condition.values_BHD[:, 0, 0]
    assert condition.context_BC is not None and torch.equal(condition.context_BC, torch.stack([i_B, -i_B], 1))
    assert torch.equal(condition.mask_BHD[:, 1:].nonzero()[:, 1], i_B.long() % 7)
    return i_B.int().tolist()


@pytest.mark.parametrize("value", [0, 2.5, math.nan])
def test_a_layout_is_made_of_whole_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=f"horizon is {value}; a whole number from 1"):
        replace(SPEC, horizon=value)


def test_timesteps_are_a_stride_apart() -> None:
    assert replace(SPEC, horizon=3).times == (0, 2, 4) and replace(SPEC, horizon=1).times == (0,)
    assert (SPEC.longer(9).horizon, SPEC.longer(3).horizon, SPEC.longer(9).stride) == (9, 8, 2)


def test_actions_are_made_known_as_observations_are() -> None:
    unknown = Condition.empty(replace(SPEC, obs_names=("a", "b", "c"), act_names=("u", "v")), 2)
    own = unknown.with_act(1, np.array([5.0, 6.0])).with_act(torch.tensor([2, -1]), torch.ones(2, 1), dims=[1])
    assert own.values_BHD[:, 1].tolist() == [[0, 0, 0, 5, 6]] * 2 and int(own.mask_BHD.sum()) == 6
    assert own.mask_BHD[0, 2].nonzero().tolist() == own.mask_BHD[1, -1].nonzero().tolist() == [[4]]
    named, by_dims = unknown.with_act(0, {"v": 3.0}), unknown.with_act(0, [3.0], dims=[1])
    assert torch.equal(named.values_BHD, by_dims.values_BHD) and torch.equal(named.mask_BHD, by_dims.mask_BHD)
    seen = np.ones(3)
    assert torch.equal(unknown.with_obs(0, seen).values_BHD, unknown.with_obs(0, torch.from_numpy(seen)).values_BHD)
    for dims in ([2], [-1]):
        with pytest.raises(ValueError, match="of an action were named"):
            unknown.with_act(0, [1.0], dims=dims)
    with pytest.raises(TypeError, match="'4' samples"):
        unknown.repeat("4")  # type: ignore[arg-type]


def test_each_builder_marks_exactly_what_it_was_given() -> None:
    unknown = Condition.empty(SPEC, 4)
    cases = {
        "start": (unknown.with_obs(0, torch.ones(4, 3)), 4 * 3),
        "goal at one row each": (unknown.with_obs(torch.tensor([1, 2, 3, 7]), torch.ones(4, 2), dims=(0, 1)), 4 * 2),
        "goal at the last row": (unknown.with_obs(-1, torch.ones(2), dims=(0, 2)), 4 * 2),
        "actions": (unknown.with_first_acts(torch.ones(4, 5, 2)), 4 * 5 * 2),
        "prefix": (unknown.with_prefix(torch.ones(4, 3, 5)), 4 * 3 * 5),
    }
    for name, (condition, count) in cases.items():
        assert int(condition.mask_BHD.sum()) == count, name
        assert torch.equal(condition.values_BHD, condition.mask_BHD.float()), name


@pytest.mark.parametrize(("call", "message"), [
    (lambda c: c.with_first_acts(torch.ones(2, 2)), r"shape \(2, 2\)"),
    (lambda c: c.with_obs(0, torch.zeros(4)), r"shape \(4,\)"),
    (lambda c: c.with_obs(0, torch.full((3,), torch.nan)), "NaN or infinite"),
    (lambda c: replace(c, values_BHD=torch.zeros(2, 8, 4)), r"values_BHD has shape \(2, 8, 4\)"),
    (lambda c: replace(c, context_BC=torch.zeros(3, 2)), "context_BC has shape"),
    (lambda c: replace(c, context_BC=torch.full((2, 2), torch.inf)), "context of the condition is NaN or infinite"),
    *[(partial(Condition.with_obs, index=0, obs=torch.ones(len(dims)), dims=dims), "0 to 4, each once")
      for dims in ((1, 1), (-1,), (5,))],
    *[(partial(Condition.with_obs, index=index, obs=torch.ones(3)), "from -8 to 7")
      for index in (8, -9, 1.5, torch.tensor([True, False]), torch.tensor([[1], [2]]))],
    (lambda c: c.repeat(0), "at least 1 sample of at least 1 condition"),
    (lambda c: c.check(replace(SPEC, stride=1)), "the condition is for TrajectorySpec"),
])
def test_what_does_not_fit_or_could_be_misread_is_refused(call: Any, message: str) -> None:
    """Actions (K, A) of one trajectory were read as columns where K is A; the rest ended in torch's errors."""
    condition = Condition.empty(SPEC, 2)
    with pytest.raises(ValueError, match=message):
        call(condition)
    condition.check(replace(SPEC))
    assert condition.with_obs(7, torch.ones(3)).mask_BHD[:, 7, :3].all()
    assert condition.with_obs(-8, torch.ones(3)).mask_BHD[:, 0, :3].all()


@pytest.mark.parametrize("given", [("0", torch.ones(3)), (None, torch.ones(3)), (0, "left"), (0, None), (0, [[1], 2])])
def test_what_are_no_numbers_is_named(given: Any) -> None:
    with pytest.raises(TypeError, match="numbers are expected"):
        Condition.empty(SPEC).with_obs(*given)


@pytest.mark.parametrize("spec", [4, None, SPEC.dim])
def test_a_condition_is_for_a_layout(spec: Any) -> None:
    with pytest.raises(TypeError, match="TrajectorySpec"):
        Condition.empty(spec)


def test_repeat_keeps_the_samples_of_one_condition_together() -> None:
    assert rows(numbered(2).repeat(3)) == [0, 0, 0, 1, 1, 1]
    assert Condition.empty(SPEC, 2).repeat(3).context_BC is None
    assert rows(numbered(2).repeat(1)) == [0, 1]


def test_conditions_are_concatenated_in_their_order() -> None:
    assert rows(cat([numbered(2, first=5), numbered(1), numbered(3, first=2)])) == [5, 6, 0, 2, 3, 4]
    assert cat([Condition.empty(SPEC, 1), Condition.empty(SPEC, 2)]).context_BC is None


def test_rows_are_taken_with_their_contexts_and_padded_by_the_first() -> None:
    assert rows(numbered(5)[1:4]) == [1, 2, 3]
    assert rows(numbered(5)[torch.tensor([3, 0])]) == [3, 0]
    assert rows(numbered(2, first=5).padded(2)) == [5, 6, 5, 5]
    assert rows(numbered(2).padded(0)) == [0, 1]
    assert Condition.empty(SPEC, 2)[:1].context_BC is None


def test_a_batch_weighs_its_windows_as_it_says_and_else_equally() -> None:
    x, mask, weight = torch.zeros(3, 8, 5), torch.ones(3, 8, 5, dtype=torch.bool), torch.tensor([0.5, 0.5, 2.0])
    assert Batch(x, mask).weights().tolist() == [1]
    assert torch.equal(Batch(x, mask, weight_B=weight).weights(), weight)
    moved = Batch(x, mask, weight_B=weight).to(x.device)
    assert torch.equal(moved.weights(), weight) and moved.context_BC is None
    last = Batch(x, mask, weight_B=weight, episode_B=torch.arange(3)).take(slice(1, None))
    assert torch.equal(last.weights(), weight[1:]) and torch.equal(last.x_BHD, x[1:]) and last.context_BC is None
    assert last.episode_B is not None and last.episode_B.tolist() == [1, 2]


def test_an_action_at_a_bound_is_clipped_and_an_observation_beyond_one_is_clamped() -> None:
    low, high = -np.ones(2), np.ones(2)
    act = np.array([[0, 0.5], [0, 1], [-1, 0], [0, 2], [-2, 0]])
    assert Limits(low, high).clips(act).tolist() == [False, True, True, True, True]
    assert Limits(low, high, low, high).clamps(act).tolist() == [False, False, False, True, True]
    for some in ((None, None), (low, None), (None, high)):
        assert Limits(low, high, *some).clamps(act).tolist() == [False] * 5
