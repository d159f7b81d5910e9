"""Numbers far from the data are told from those that an agent meets where it wanders a little."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentraj.ranges import DataRanges, FarFromData

LOW, HIGH = [-1.0, 0.25, 1000.0], [1.0, 0.25, 1000.0]


@given(st.floats(-2.9, 2.9))
def test_an_entry_may_wander_by_as_much_as_its_range(x: float) -> None:
    assert DataRanges(LOW, HIGH).hold(torch.tensor([[x, 0.25, 1000.0]]))


@pytest.mark.parametrize("row", [[3.1, 0.25, 1000.0], [0.0, 0.251, 1000.0], [0.0, 0.25, 1000.5], [0.0, 0.0, 1000.0],
                                 [torch.nan, 0.25, 1000.0], [0.0, 0.25, torch.inf]])
def test_a_constant_may_differ_by_rounding_alone_and_nothing_may_be_nan(row: list[float]) -> None:
    ranges = DataRanges(LOW, HIGH)
    assert not ranges.hold(torch.tensor([[0.0, 0.25, 1000.0], row]))
    assert ranges.hold(torch.tensor([[0.0, 0.25 + 1e-6, 1000.001]]))


def test_the_entries_that_are_far_are_named_with_both_ranges() -> None:
    ranges = DataRanges(LOW, HIGH, goal_dims=(1,))
    words = ranges.difference(torch.tensor([[0.0, -0.46, 1000.0], [9.0, 0.46, 1000.0]]), "observation")
    assert "observation[1]" in words and "0.25" in words and "-0.46 to 0.46" in words and "observation[0]" in words
    assert "observation[2]" not in words
    assert ranges.goal is not None and "goal[0]" in ranges.goal.difference(torch.tensor([[3.0]]), "goal")


def test_an_entry_counts_where_it_is_far_in_more_than_a_share_of_the_rows() -> None:
    x = torch.zeros(100, 1)
    x[:3] = 50
    ranges = DataRanges([-1.0], [1.0])
    assert ranges.difference(x, "observation", 0.02) and not ranges.difference(x, "observation", 0.03)


def test_it_is_said_once() -> None:
    ranges = DataRanges([0.0], [1.0])
    with pytest.warns(FarFromData):
        ranges.tell(torch.tensor([[9.0]]), "observation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranges.tell(torch.tensor([[9.0]]), "observation")
