"""Sets of trajectories with known modes, each with a function that assigns trajectories to modes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gentraj.envs.tasks.maze import Maze
from gentraj.metrics import mode_shares, nearest_mode
from gentraj.models.conditioning import ConditionMix
from gentraj.normalize import Normalizer
from gentraj.randomness import generator
from gentraj.trajectory import Batch, Condition, TrajectorySpec

WINDOWS = 20_000
RING = ("11111", "10001", "10101", "10001", "11111")
SPACING, SPREAD = 2.0, 0.2  # of the grid's Gaussians; a mode is what lies within 3 standard deviations, 98.9 %


@dataclass(frozen=True)
class ModeSet:
    """Windows (R, H, 2) of a point's positions, and the timesteps that samples are conditioned on."""

    x_RHD: Tensor
    mode: Callable[[Tensor], Tensor]
    """A function from trajectories (R, H, 2) to their modes (R,), -1 for none."""
    names: tuple[str, ...]
    true_K: Tensor
    """The share of each mode among the trajectories."""
    conditioning: ConditionMix
    """The conditions in training."""
    conditioned: tuple[int, ...] = ()
    """The timesteps that are conditioned on in sampling."""
    maze: Maze | None = None

    @property
    def spec(self) -> TrajectorySpec:
        return TrajectorySpec(self.x_RHD.shape[2], 0, self.x_RHD.shape[1])

    def normalizer(self, kind: str) -> Normalizer:
        return Normalizer.fit(kind, [self.x_RHD.flatten(0, 1).numpy()])

    def batch(self, size: int, rng: torch.Generator) -> Batch:
        x = self.x_RHD[torch.randint(len(self.x_RHD), (size,), generator=rng)]
        return Batch(x, torch.ones_like(x, dtype=torch.bool))

    def conditions(self, num: int) -> Condition:
        """Returns the conditions of the first `num` windows."""
        condition = Condition.empty(self.spec, num)
        for row in self.conditioned:
            condition = condition.with_obs(row, self.x_RHD[:num, row])
        return condition

    def shares(self, x_RHD: Tensor) -> Tensor:
        return mode_shares(self.mode(x_RHD), len(self.names))


def grid(seed: int, side: int = 5, horizon: int = 4) -> ModeSet:
    """Straight paths from the origin to one of `side`^2 Gaussians, equally often; sampling is unconditional."""
    rng, line = generator(seed, 0), SPACING * (torch.arange(side) - (side - 1) / 2)
    centres = torch.cartesian_prod(line, line)
    ends = centres[torch.randint(len(centres), (WINDOWS,), generator=rng)]
    ends = ends + SPREAD * torch.randn(ends.shape, generator=rng)
    x = torch.linspace(0, 1, horizon)[:, None] * ends[:, None]
    return ModeSet(x, lambda x: nearest_mode(x[:, -1], centres, 3 * SPREAD), tuple(map(str, range(len(centres)))),
                   torch.full((len(centres),), 1 / len(centres)), ConditionMix(start=0, goal=0))


def goals(seed: int, shares: Sequence[float] = (0.4, 0.3, 0.2, 0.1), horizon: int = 16) -> ModeSet:
    """Paths from one place to goals on a half circle, one for each share; samples are conditioned on the start."""
    angle = torch.linspace(0, torch.pi, len(shares))
    ends = 2 * torch.stack([angle.cos(), angle.sin()], -1)
    way_KHD = torch.linspace(0, 1, horizon)[:, None] * ends[:, None]
    x = disturbed(way_KHD, shares, generator(seed, 1))
    return ModeSet(x, lambda x: nearest_mode(x[:, -1], ends, 0.5), tuple(f"goal {k + 1}" for k in range(len(shares))),
                   torch.tensor(shares), ConditionMix(goal=0), conditioned=(0,))


def ways(seed: int, maze_map: Sequence[str] = RING, start: tuple[int, int] = (3, 2), goal: tuple[int, int] = (1, 2),
         shares: Sequence[float] = (0.7, 0.3), horizon: int = 16) -> ModeSet:
    """All shortest paths through a maze between two cells (row, column), with the given shares.

    Samples are conditioned on both ends. A trajectory belongs to the path from which its root mean square distance is
    below 0.35 cells, or to none if one of its positions lies in a wall. Raises ValueError unless there are as many
    shortest paths as shares.
    """
    maze = Maze([[int(cell) for cell in row] for row in maze_map])
    paths = shortest_ways(maze, maze.number(*start), maze.number(*goal))
    if len(paths) != len(shares):
        raise ValueError(f"{len(shares)} shares were given for {len(paths)} shortest paths from {start} to {goal}; "
                         "give one share for each path, or other cells")
    way_KHD = torch.stack([evenly(maze.centre(np.array(way)), horizon) for way in paths])

    def mode(x: Tensor) -> Tensor:
        near = nearest_mode(x.flatten(1), way_KHD.flatten(1), 0.35 * horizon**0.5)
        free = torch.from_numpy(maze.free.ravel()[maze.cell(x.numpy())]).all(1)
        return torch.where(free, near, -1)

    x = disturbed(way_KHD, shares, generator(seed, 2))
    return ModeSet(x, mode, tuple(f"way {k + 1}" for k in range(len(shares))), torch.tensor(shares), ConditionMix(),
                   conditioned=(0, -1), maze=maze)


def disturbed(way_KHD: Tensor, shares: Sequence[float], rng: torch.Generator, spread: float = 0.08) -> Tensor:
    """Samples paths (WINDOWS, H, D) by their shares, and shifts, tilts, bends and shakes them."""
    which = torch.multinomial(torch.tensor(shares), WINDOWS, replacement=True, generator=rng)
    s = torch.linspace(0, 1, way_KHD.shape[1])[:, None]
    shift, tilt, bend = spread * torch.randn(3, WINDOWS, 1, way_KHD.shape[2], generator=rng)
    shake = 0.02 * torch.randn(WINDOWS, *way_KHD.shape[1:], generator=rng)
    return way_KHD[which] + shift + tilt * (s - 0.5) + bend * (torch.pi * s).sin() + shake


def shortest_ways(maze: Maze, start: int, goal: int) -> list[list[int]]:
    """Returns every shortest path between two cells of a walled maze, as lists of cell numbers."""
    if start == goal:
        return [[goal]]
    columns = maze.free.shape[1]
    beside = [start + d for d in (-1, 1, -columns, columns) if maze.free.flat[start + d]]
    nearer = [cell for cell in beside if distance(maze, cell, goal) < distance(maze, start, goal)]
    return [[start, *way] for cell in nearer for way in shortest_ways(maze, cell, goal)]


def distance(maze: Maze, cell: int, goal: int) -> float:
    """Returns the number of cells entered on a shortest path; infinity if there is none."""
    count, following = 0, maze.next_cell[goal]
    while cell != goal:
        if following[cell] == cell:
            return math.inf
        cell, count = int(following[cell]), count + 1
    return count


def evenly(points_PD: np.ndarray, horizon: int) -> Tensor:
    """Returns `horizon` points (horizon, D) at equal distances along a polyline."""
    walked = np.concatenate([[0], np.linalg.norm(np.diff(points_PD, axis=0), axis=1).cumsum()])
    at = np.linspace(0, walked[-1], horizon)
    return torch.tensor(np.stack([np.interp(at, walked, column) for column in points_PD.T], -1), dtype=torch.float32)


SETS: dict[str, Callable[[int], ModeSet]] = {"grid": grid, "ways": ways, "goals": goals}
