"""A tiny environment with hand-computable numbers, and runs of two tiny world models."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from tiny_world import train

from gentraj.data import Episodes, save_npz


class Counter(gymnasium.Env):
    """Counts its steps. The seed draws an episode's length, 3 to 9; even ones terminate, odd ones are truncated.

    The observation is (steps so far, length), the reward is the action, and an action above 0 is a success.
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


@pytest.fixture(scope="session")
def hopping(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a world model of Hopper-v5."""
    return train(hopper_file, tmp_path_factory.mktemp("world") / "run")


@pytest.fixture(scope="session")
def walks() -> Episodes:
    """Episodes (position and velocity) of a point that random actions push, with goals; they name no environment."""
    rng, E, T = np.random.default_rng(0), 40, 12
    act_ETA = rng.uniform(-0.5, 0.25, (E, T, 2))
    velocity = np.concatenate([np.zeros((E, 1, 2)), act_ETA.cumsum(1)], 1)
    obs = np.concatenate([rng.normal(size=(E, 1, 2)) + 0.1 * velocity.cumsum(1), velocity], 2).reshape(-1, 4)
    goal = np.repeat(rng.normal(size=(E, 2)), T + 1, 0)
    return Episodes(obs, act_ETA.reshape(-1, 2), np.zeros(E * T), np.zeros(E * T, bool),
                    np.arange(E * T) % T == T - 1, np.full(E, T), {"goal": goal}, (0, 1), ("observation",))


@pytest.fixture(scope="session")
def walking(walks: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return train(save_npz(walks, folder / "walks.npz"), folder / "run")
