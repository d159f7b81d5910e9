"""Locomotion data by policies trained here: which snapshots are chosen, and that the data depend on the seed only."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gentraj.envs.recording import behaviours
from gentraj.envs.recording.behaviours import MIXED, SNAPSHOTS, choose, record
from gentraj.envs.tasks.registry import LOCOMOTION
from gentraj.randomness import seeded


def snapshots(*returns):
    return [SimpleNamespace(return_mean=mean) for mean in returns]


def test_medium_is_the_first_that_is_half_as_good_as_the_last():
    way = snapshots(*np.linspace(-100, 3000, SNAPSHOTS))
    assert choose("expert", way, -100.0) == way[-1:]
    (medium,) = choose("medium", way, -100.0)
    assert medium is way[SNAPSHOTS // 2] and way[SNAPSHOTS // 2 - 1].return_mean < 1450 <= medium.return_mean
    mixed = choose("mixed", way, -100.0)
    assert len(mixed) == MIXED and mixed[-1] is way[-1] and way.index(mixed[0]) == SNAPSHOTS // MIXED - 1


def test_global_generators_are_seeded_and_restored():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with seeded(3):
        first = draw()
    with seeded(3):
        assert draw() == first
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert (torch.get_rng_state() == states[2]).all()


def test_a_recording_is_whole_episodes_within_bounds_and_a_function_of_its_seed(monkeypatch):
    pytest.importorskip("stable_baselines3")
    monkeypatch.setitem(behaviours.SETTINGS, "n_steps", 16)  # of each environment in an update
    one, same = (record("mujoco/hopper-mixed", 300, 7, train_steps=1, progress=False) for _ in range(2))
    assert one == same and one.num_steps >= 300 > one.num_steps - one.lengths[-1]
    assert one.terminated[one.lengths.cumsum() - 1].all()  # a hopper that has just begun to learn falls
    assert np.abs(one.act).max() <= 1 and LOCOMOTION["hopper"].env_id in str(one.env)
