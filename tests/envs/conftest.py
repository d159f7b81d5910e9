"""A tiny environment whose every number is known."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box


class Counter(gymnasium.Env):
    """Counts its steps; the seed draws how many, 3 to 9, an even number terminates, an odd one truncates.

    The observation is (steps so far, steps in all), the reward is the action, and one above 0 a success.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.length = 0, int(self.np_random.integers(3, 10))
        return np.array([0.0, self.length]), {}

    def step(self, action):
        self.count += 1
        end, even = self.count == self.length, self.length % 2 == 0
        info = {"success": action[0] > 0}
        return np.array([self.count, self.length]), float(action[0]), end and even, end and not even, info


@pytest.fixture
def counter():
    return Counter
