"""A small environment in which whoever does what is seen is best; importing this registers it as "tests/Follow-v0"."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Follow(gymnasium.Env):
    """Ten steps in each of which the action that is the first of two random numbers earns 0, and any other less."""

    observation_space, action_space = Box(-1, 1, (2,)), Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = -float(abs(action[0] - self.seen[0]))
        return self._look(), reward, False, False, {}

    def _look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen


gymnasium.register("tests/Follow-v0", f"{__name__}:Follow", max_episode_steps=10)
