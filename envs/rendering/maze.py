"""Draws the walls of a maze on a matplotlib axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tasks.maze import Maze, MazeMap


def draw_maze(ax: Any, maze_map: MazeMap, scaling: float = 1.0, color: str = "0.82") -> None:
    """Draws the walls on a matplotlib `ax` in the environment's coordinates and fits its limits to the maze."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    maze = Maze(maze_map, scaling)
    corners = maze.centre(np.flatnonzero(~maze.free)) - scaling / 2
    walls = [Rectangle((x, y), scaling, scaling) for x, y in corners]
    ax.add_collection(PatchCollection(walls, facecolor=color, linewidth=0))
    y, x = np.array(maze.free.shape) * scaling / 2
    ax.set(xlim=(-x, x), ylim=(-y, y), aspect="equal", xticks=[], yticks=[])
