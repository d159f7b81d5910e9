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


def test_noise_hides_no_rests_and_moves_them_by_a_few_steps():
    """Noise of a tenth of the speed, as of a millimetre where an object is moved by a centimetre in a step."""
    rng = np.random.default_rng(0)
    clean_N1 = pushed(*rng.uniform(0, 20, 60) + 30 * (np.arange(60) % 2), moving=20, resting=30)
    clean_N3 = np.concatenate([clean_N1, clean_N1[:, :1] * 0.7, np.zeros_like(clean_N1)], 1)
    clean = rests(clean_N3)
    noisy = rests(clean_N3 + 0.1 * clean.speed * rng.normal(size=clean_N3.shape))
    assert (noisy.noise_G >= 0.09 * clean.speed).all() and (noisy.noise_G <= 0.25 * clean.speed).all()
    begins, found = np.unique(clean.next_N), np.unique(noisy.next_N)
    assert len(found) == len(begins)
    assert np.abs(found - begins).max() <= 6


def test_what_never_rests_has_no_noise_that_would_hide_its_motion():
    rng = np.random.default_rng(0)
    walk_N2 = np.cumsum(rng.uniform(-1, 1, (3000, 2)), 0)
    found = rests(walk_N2)
    assert (found.noise_G == 0).all() and found.share < 0.01


def test_who_walks_about_where_it_arrived_does_not_rest_there():
    """As OGBench's point mazes are recorded: along a lane, and then about its end for as long again."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(50):
        noise_TG = 0.15 * rng.normal(size=(200, 2))
        along_TG = np.minimum(0.17 * np.arange(200)[:, None], 16) * np.eye(2)[rng.integers(2)]
        episodes.append(along_TG + noise_TG)
    found = Rests.of(np.concatenate(episodes), np.repeat(np.arange(50), 200))
    assert found.share < 0.01
