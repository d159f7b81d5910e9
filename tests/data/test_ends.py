"""Terminations that look like any other step are told from those at places where no episode goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gentraj.data import Episodes
from gentraj.data.ends import ends_like_any
from gentraj.data.sources import inspect
from gentraj.runs.kinds.presets import PRESETS
from gentraj.runs.learn.training import check_lessons


def walks(number: int = 200, seed: int = 0) -> Episodes:
    """Random walks in a plane, which trip where the first coordinate is beyond 1, and are cut at random before."""
    rng = np.random.default_rng(seed)
    obs, lengths, terminated = [], [], []
    for _ in range(number):
        place = [rng.uniform(-0.5, 0.5, 2)]
        steps = rng.integers(5, 60)
        while len(place) <= steps and abs(place[-1][0]) < 1:
            place.append(place[-1] + rng.normal(0, 0.15, 2))
        obs += place
        lengths.append(len(place) - 1)
        terminated += [False] * (len(place) - 2) + [abs(place[-1][0]) >= 1]
    S = sum(lengths)
    last = np.zeros(S, bool)
    last[np.cumsum(lengths) - 1] = True
    return Episodes(np.array(obs), rng.normal(size=(S, 1)), np.zeros(S), np.array(terminated),
                    last & ~np.array(terminated), np.array(lengths), name="walks")


@pytest.mark.parametrize("seed", range(3))
def test_flags_that_are_right_are_told_from_those_that_are_swapped(seed: int) -> None:
    data = walks(seed=seed)
    assert not ends_like_any(data)
    assert ends_like_any(replace(data, terminated=data.truncated, truncated=data.terminated))


def test_an_end_that_only_its_reward_tells_is_an_end(hopper: Episodes) -> None:
    data = walks()
    goals = replace(data, terminated=data.truncated, truncated=data.terminated, reward=data.truncated * 1.0)
    assert not ends_like_any(goals)
    assert not ends_like_any(hopper)  # twelve falls say nothing


def test_steps_that_are_episodes_of_their_own_all_end() -> None:
    rng, always = np.random.default_rng(0), np.ones(100, bool)
    one_step = Episodes(rng.normal(size=(200, 2)), rng.normal(size=(100, 1)), np.zeros(100), always, ~always,
                        np.ones(100, int))
    assert not ends_like_any(one_step)
    assert not ends_like_any(one_step[:2])


def test_they_are_said_by_a_training_of_values_and_by_inspect() -> None:
    data = replace(walks(), reward=np.ones(walks().num_steps))
    wrong = replace(data, terminated=data.truncated, truncated=data.terminated)
    with pytest.warns(UserWarning, match="truncated"):
        check_lessons(PRESETS["iql"], wrong)
    check_lessons(PRESETS["iql"], data)
    check_lessons(PRESETS["bc-gaussian"], wrong)
    assert inspect(wrong) != inspect(data) and "others go on" in inspect(wrong) and "others go on" not in inspect(data)
