"""Where positions come to rest."""

from itertools import pairwise

import numpy as np
import pytest

from gentraj.data.rests import Rests


def pushed(*places: float, moving: int = 5, resting: int = 10) -> np.ndarray:
    """A position that rests at each place, and moves evenly between them."""
    parts = [np.full(resting, places[0])]
    for before, after in pairwise(places):
        parts += [np.linspace(before, after, moving + 1)[1:], np.full(resting, after)]
    return np.concatenate(parts)[:, None]


def rests(*episodes: np.ndarray) -> Rests:
    return Rests.of(np.concatenate(episodes), np.repeat(np.arange(len(episodes)), [len(each) for each in episodes]))


def test_a_rest_follows_each_motion():
    found = rests(pushed(0, 10, 4))
    assert found.next_N[:14].tolist() == [14] * 14  # the step to the place is the last that moves
    assert found.next_N[14:29].tolist() == [29] * 15
    assert (found.next_N[29:] == len(found.next_N)).all()
    assert found.since_N[[5, 12, 20]].tolist() == [0, 12, 14]
    assert found.share == pytest.approx(1 - 11 / 40)


def test_no_rest_follows_in_another_episode():
    found = rests(pushed(0, 10), pushed(3, 6))
    assert (found.next_N[14:25] == 50).all()
    assert found.next_N[25] == 39


def test_what_hardly_moves_is_at_the_same_rest():
    position_N1 = pushed(0, 10, 10.1, 20)
    found = rests(position_N1)
    assert set(found.next_N[20:40]) == {44}


def test_a_switch_flips_in_one_step_and_lies_between_rests():
    switch_N = np.repeat([0, 1, 0], 10)
    found = rests(np.stack([np.zeros(30), switch_N], 1))
    assert found.next_N.tolist() == [10] * 10 + [20] * 10 + [30] * 10
    assert found.speed == 1
    assert np.linalg.norm([1, 0] * found.scale_G) < 1e-3 * np.linalg.norm([0, 1] * found.scale_G)


def test_a_constant_entry_is_no_switch_and_the_speed_is_that_of_what_moves():
    moving_N1 = pushed(*range(0, 80, 10), moving=40)
    found = rests(np.concatenate([moving_N1, np.ones_like(moving_N1)], 1))
    assert (found.scale_G == 1).all()
    assert found.speed == pytest.approx(10 / 40, rel=0.01)


def test_nothing_that_moves_is_refused():
    with pytest.raises(ValueError, match="do not change"):
        rests(np.ones((20, 2)))
