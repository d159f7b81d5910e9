"""Baseline agents: the waypoint controller that records PointMaze data, and a random agent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gentraj.randomness import fold
from gentraj.trajectory import Agent

from ..tasks.maze import Maze


class Seeded(Agent):
    """An agent with one random generator per environment, so that episodes do not depend on each other.

    With `folds` the seeds are folded, as an environment draws its start from the same seed by the same generator.
    """

    folds = False

    def __init__(self) -> None:
        self._streams: list[np.random.Generator] = []

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        """Restarts the generators of the masked environments (all by default) with one seed for each environment."""
        if seeds_B is None:
            seeds_B = [fold(0, i) for i in range(len(self._streams) if mask_B is None else len(mask_B))]
        elif self.folds:
            seeds_B = [fold(seed, 1) for seed in seeds_B]
        self._allocate(len(seeds_B))
        for i, seed in enumerate(seeds_B):
            if mask_B is None or mask_B[i]:
                self._streams[i] = np.random.default_rng(seed)

    def _allocate(self, batch: int) -> None:
        if len(self._streams) != batch:
            self._streams = [np.random.default_rng(fold(0, i)) for i in range(batch)]


class RandomAgent(Seeded):
    """An agent whose actions are uniform between `low_A` and `high_A`, the bounds of the action space.

    Raises ValueError for bounds that are infinite.
    """

    folds = True

    def __init__(self, low_A: np.ndarray, high_A: np.ndarray):
        super().__init__()
        self.low_A, self.high_A = np.asarray(low_A, np.float32), np.asarray(high_A, np.float32)
        if not np.isfinite([self.low_A, self.high_A]).all():
            raise ValueError(f"a random agent needs bounds; the actions are from {self.low_A} to {self.high_A}")

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """Returns actions (B, A), float32."""
        self._allocate(len(obs_BO))
        uniform_BA = np.stack([stream.random(len(self.low_A), np.float32) for stream in self._streams])
        drawn_BA = self.low_A + uniform_BA * (self.high_A - self.low_A)
        return torch.from_numpy(drawn_BA.clip(self.low_A, self.high_A))


class WaypointController(Seeded):
    """PointMaze's public recipe: a PD controller that follows a shortest path from cell to cell.

    Its waypoints are the cells' jittered centres. It replans at every reset, for every new goal, and when it has left
    its path. Without noise it is the baseline of every planner; `noise` is the standard deviation of the Gaussian noise
    on the actions with which data are recorded.
    """

    GAINS = (10.0, -1.0)  # of the distance to the waypoint and of the velocity
    REACHED = 0.1  # distance at which a waypoint is reached
    JITTER = 0.2  # a waypoint lies up to this far below its cell's centre in x and in y

    def __init__(self, maze: Maze, noise: float = 0.0):
        super().__init__()
        self.maze, self.noise = maze, noise
        self.goal_BG = np.zeros((0, 2))

    def reset(self, mask_B: Tensor | None = None, seeds_B: Sequence[int] | None = None) -> None:
        super().reset(mask_B, seeds_B)
        self.goal_BG[slice(None) if mask_B is None else np.asarray(mask_B, bool)] = np.nan  # equal to no goal: replan

    def act(self, obs_BO: Tensor, goal_BG: Tensor | None = None) -> Tensor:
        """Returns actions (B, 2), float32, in [-1, 1]; `obs_BO` holds position and velocity."""
        if goal_BG is None:
            raise ValueError("the waypoint controller needs a goal; this environment has none")
        return torch.from_numpy(self.control(obs_BO.double().numpy(), goal_BG.double().numpy()))

    def control(self, obs_BO: np.ndarray, goal_BG: np.ndarray) -> np.ndarray:
        """Does what `act` does, for numpy arrays."""
        self._allocate(len(obs_BO))
        position_BG, velocity_BG = obs_BO[:, :2], obs_BO[:, 2:4]
        self._follow(position_BG, goal_BG)
        action_BA = self.GAINS[0] * (self.waypoint_BG - position_BG) + self.GAINS[1] * velocity_BG
        if self.noise:
            action_BA += self.noise * np.stack([stream.standard_normal(2) for stream in self._streams])
        return np.clip(action_BA, -1, 1).astype(np.float32)

    def _follow(self, position_BG: np.ndarray, goal_BG: np.ndarray) -> None:
        """Moves the waypoints of agents that have a new goal, have reached their waypoint, or have left their path."""
        table = self.maze.next_cell
        here_B = self.maze.cell(position_BG)
        goal_B = self.maze.cell(goal_BG)
        replan_B = (goal_BG != self.goal_BG).any(1)
        replan_B |= (here_B != self.cell_B) & (table[self.cell_B, here_B] != self.cell_B)
        reached_B = (np.linalg.norm(self.waypoint_BG - position_BG, axis=1) <= self.REACHED) & (self.cell_B != goal_B)
        self.goal_BG = goal_BG.copy()
        for i in np.flatnonzero(replan_B | reached_B):
            if replan_B[i]:
                self.cell_B[i] = here_B[i]
            self.cell_B[i] = table[goal_B[i], self.cell_B[i]]
            jitter = self.JITTER * self.maze.scaling * self._streams[i].random(2)
            self.waypoint_BG[i] = self.maze.centre(self.cell_B[i]) - jitter
            if self.cell_B[i] == goal_B[i]:
                self.waypoint_BG[i] = goal_BG[i]

    def _allocate(self, batch: int) -> None:
        if len(self._streams) != batch:
            self.goal_BG, self.waypoint_BG = np.full((batch, 2), np.nan), np.zeros((batch, 2))
            self.cell_B = np.zeros(batch, int)
        super()._allocate(batch)
