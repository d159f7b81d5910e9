"""D4RL's single-goal protocol of maze2d, on Gymnasium-Robotics' PointMaze."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from .maze import Maze

RADIUS = 0.5  # Gymnasium-Robotics' own is 0.45
START_NOISE = 0.1  # half width of the start around a cell's centre, and deviation of its velocity


class SingleGoal(gymnasium.Wrapper):
    """The goal is the exact centre of one cell and the start lies in any cell, that one included.

    The reward is 1 within 0.5 of the goal, `info["success"]` says the same, and nothing terminates.
    """

    def __init__(self, env: gymnasium.Env, goal_cell: tuple[int, int]):
        super().__init__(env)
        self.base: Any = env.unwrapped
        self.maze = Maze(self.base.maze.maze_map, self.base.maze.maze_size_scaling)
        self.goal = self.maze.centre(self.maze.number(*goal_cell))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        _, info = self.env.reset(seed=seed)
        random = self.base.np_random
        start = self.maze.centre(random.choice(self.maze.cells)) + random.uniform(-START_NOISE, START_NOISE, 2)
        self.base.point_env.set_state(start, START_NOISE * random.standard_normal(2))
        self.base.goal = self.goal.copy()
        self.base.update_target_site_pos()
        state, goal = self.base.point_env.state_vector(), self.goal.copy()
        obs = {"observation": state, "achieved_goal": start, "desired_goal": goal}
        return obs, info | {"success": self._reached(start)}

    def step(self, action: Any):
        obs, _, terminated, truncated, info = self.env.step(action)
        reached = self._reached(obs["achieved_goal"])
        return obs, float(reached), terminated, truncated, info | {"success": reached}

    def _reached(self, position: np.ndarray) -> bool:
        return bool(np.linalg.norm(position - self.goal) <= RADIUS)
