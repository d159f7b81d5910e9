"""Baseline agents: the waypoint controller that records PointMaze data, and a random agent."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import ArrayLike
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

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if self.folds:
            seeds_B = [fold(seed, 1) for seed in seeds_B]
        fresh = [np.random.default_rng(seed) for seed in seeds_B]
        if len(self._streams) == len(fresh):
            kept = zip(mask_B.tolist(), fresh, self._streams, strict=True)
            fresh = [new if masked else old for masked, new, old in kept]
        self._streams = fresh


class RandomAgent(Seeded):
    """An agent whose actions are uniform in an action space, `RandomAgent(env.action_space)`, or between `low_A` and
    `high_A`.

    A single number is the bound of an action of one entry. Raises ValueError for other spaces than a Box, and for
    bounds that are missing, infinite, or the wrong way round.
    """

    folds = True

    def __init__(self, low_A: Box | ArrayLike, high_A: ArrayLike | None = None):
        super().__init__()
        given = str(low_A) if high_A is None else f"{low_A} and {high_A}"
        if isinstance(low_A, Box) and high_A is None:
            low_A, high_A = low_A.low.ravel(), low_A.high.ravel()
        try:
            self.low_A, self.high_A = np.atleast_1d(np.asarray(low_A, np.float32), np.asarray(high_A, np.float32))
            bounded = self.low_A.ndim == 1 and np.isfinite([*self.low_A, *self.high_A]).all()
            bounded = bounded and len(self.low_A) == len(self.high_A) and (self.low_A <= self.high_A).all()
        except (TypeError, ValueError):  # no numbers, or bounds of different lengths
            bounded = False
        if not bounded:
            raise ValueError(f"a random agent was given {given}; a Box of actions such as env.action_space, or a lower "
                             "and an upper bound of each entry, are expected, all of them finite")

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """Returns actions (B, A), float32."""
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

    def _reset(self, seeds_B: list[int], mask_B: Tensor) -> None:
        if len(self.goal_BG) != len(seeds_B):
            self.goal_BG, self.waypoint_BG = np.full((len(seeds_B), 2), np.nan), np.zeros((len(seeds_B), 2))
            self.cell_B = np.zeros(len(seeds_B), int)
        super()._reset(seeds_B, mask_B)
        self.goal_BG[mask_B.numpy()] = np.nan  # equal to no goal: replan

    def _act(self, obs_BO: Tensor, goal_BG: Tensor | None) -> Tensor:
        """Returns actions (B, 2), float32, in [-1, 1]; `obs_BO` holds position and velocity."""
        if goal_BG is None:
            raise ValueError("the waypoint controller needs a goal; this environment has none")
        return torch.from_numpy(self.control(obs_BO.double().numpy(), goal_BG.double().numpy()))

    def control(self, obs_BO: np.ndarray, goal_BG: np.ndarray) -> np.ndarray:
        """Does what `act` does, for arrays and after a reset."""
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
