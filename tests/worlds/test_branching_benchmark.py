"""The transitions that `benchmarks.branching` learns from, against a calculation by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.branching import DISCOUNT, Args, Learner
from gentraj.data import Episodes


def test_a_transition_adds_the_rewards_of_its_steps_and_ends_with_its_episode() -> None:
    reward = np.array([1, 2, 3, 4, 5], np.float32)  # an episode of 3 steps that terminates, and one cut off after 2
    obs = np.arange(7, dtype=np.float32)[:, None]
    data = Episodes(obs, np.linspace(-1, 1, 5, dtype=np.float32)[:, None], reward, np.arange(5) == 2,
                    np.arange(5) == 4, np.array([3, 2]))
    learner = Learner(data, Args("", "", Path(), n_step=2, width=4))
    t = learner.transitions(data)
    np.testing.assert_allclose(t.reward * learner.unit, [1 + 2 * DISCOUNT, 2 + 3 * DISCOUNT, 3, 4 + 5 * DISCOUNT, 5],
                               rtol=1e-6)
    assert t.discount.tolist() == pytest.approx([DISCOUNT**2, 0, 0, DISCOUNT**2, DISCOUNT])
    scaled = (obs[:, 0] - obs.mean()) / obs.std()
    np.testing.assert_allclose(t.state[:, 0], scaled[[0, 1, 2, 4, 5]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(t.next[:, 0], scaled[[2, 3, 3, 6, 6]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(t.act[:, 0], [-1, -0.5, 0, 0.5, 1], atol=1e-6)
