"""A maze as a grid of cells: walls, coordinates and shortest paths; and D4RL's single-goal protocol in mazes."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

MazeMap = Sequence[Sequence[int | str]]

WALL = 1
WALL_GREY = "0.82"  # of walls in figures
CELLS = (0, WALL, "r", "g", "c")
RADIUS = 0.5  # of D4RL's goals; that of Gymnasium-Robotics is 0.45
START_NOISE = 0.1  # half width of the start around a cell's centre, and standard deviation of its velocity


class Disc(NamedTuple):
    """An obstacle or a door in a maze: the positions nearer than `radius` to (x, y)."""

    x: float
    y: float
    radius: float

    def contains(self, x: float, y: float) -> bool:
        return math.hypot(x - self.x, y - self.y) < self.radius


class Maze:
    """The grid of a Gymnasium-Robotics maze: 1 is a wall; 0, "r", "g" and "c" are free (any, reset, goal, both).

    Positions are (x, y) with the maze's middle at `middle`; x grows with the columns, y against the rows. Cells are
    numbered `row * columns + column`. Who comes to one of the `entrances` is moved to one of the `exits`, which paths
    ignore. Raises ValueError for a map that is no list of rows, is not a rectangle, or has other cells, and where a
    goal has no start in another cell: the environment would search for one for ever.
    """

    def __init__(self, maze_map: MazeMap, scaling: float = 1.0, middle: tuple[float, float] = (0.0, 0.0),
                 entrances: Sequence[Disc] = (), exits: Sequence[Disc] = ()):
        try:
            self.map = [list(row) for row in maze_map]
        except TypeError as error:
            raise ValueError(f"the maze map is {reprlib.repr(maze_map)}; a list of rows, each a list of cells, is "
                             "expected") from error
        if len({len(row) for row in self.map}) != 1:
            raise ValueError(f"a maze map needs rows of one width; got widths {[len(row) for row in self.map]}")
        if other := [cell for row in self.map for cell in row if np.ndim(cell) or cell not in CELLS]:
            raise ValueError(f"the maze map has the cell {other[0]!r}; {', '.join(map(repr, CELLS))} are expected")
        self.scaling = scaling
        self.middle = np.array(middle)
        self.entrances, self.exits = entrances, exits
        self.free = np.array([[cell != WALL for cell in row] for row in self.map])
        if self.free.sum() < 2:
            raise ValueError(f"a maze needs two free cells at least; this map has {self.free.sum()}")
        goals, starts = self.goals.tolist(), self.starts.tolist()
        if not goals or not starts or (len(starts) == 1 and starts[0] in goals):
            raise ValueError(f"a maze needs, for each goal, a start in another cell; this map has goals in "
                             f"{len(goals)} cells and starts in {len(starts)}; mark more cells, or none")

    @property
    def cells(self) -> np.ndarray:
        """The numbers of the free cells."""
        return np.flatnonzero(self.free)

    @property
    def goals(self) -> np.ndarray:
        """The numbers of the cells in which the environment places goals."""
        return self._marked("g", "c")

    @property
    def starts(self) -> np.ndarray:
        """The numbers of the cells in which the environment places starts."""
        return self._marked("r", "c")

    def _marked(self, *marks: str) -> np.ndarray:
        """The numbers of the cells with one of these marks, or, if there are none, of those without any mark."""
        cells = [cell for row in self.map for cell in row]
        found = [i for i, cell in enumerate(cells) if cell in marks] or [i for i, cell in enumerate(cells) if cell == 0]
        return np.array(found, int)

    @property
    def longest_way(self) -> int:
        """The number of cells entered on the longest of the shortest paths between two cells."""
        return int(self.path_lengths[np.isfinite(self.path_lengths)].max())

    @property
    def farthest(self) -> tuple[int, int]:
        """The two free cells with the longest of the shortest paths between two cells."""
        lengths = self.path_lengths
        first, second = np.unravel_index(np.where(np.isfinite(lengths), lengths, -1).argmax(), lengths.shape)
        return int(first), int(second)

    @cached_property
    def next_cell(self) -> np.ndarray:
        """(goal, cell): the next cell on a shortest path to the goal; the cell itself if no path leads there."""
        return ways(self.free.tobytes(), self.free.shape)[1]

    @cached_property
    def path_lengths(self) -> np.ndarray:
        """(cell, cell): the number of cells entered on a shortest path; infinite where there is none."""
        return ways(self.free.tobytes(), self.free.shape)[0]

    def connects(self, cells: np.ndarray) -> bool:
        """Whether paths lead from each of these cells to all of them."""
        return bool(np.isfinite(self.path_lengths[np.ix_(cells, cells)]).all())

    def number(self, row: int, column: int) -> int:
        return row * self.free.shape[1] + column

    def centre(self, cell: np.ndarray | int) -> np.ndarray:
        """Maps numbers of cells (...) to their centres (..., 2)."""
        rows, columns = self.free.shape
        row, column = np.divmod(cell, columns)
        return np.stack([column + 0.5 - columns / 2, rows / 2 - row - 0.5], -1) * self.scaling + self.middle

    def cell(self, position: np.ndarray) -> np.ndarray:
        """Maps positions (..., 2) to the numbers of their cells (...); outside the map to the nearest cell."""
        rows, columns = self.free.shape
        x, y = np.moveaxis((position - self.middle) / self.scaling, -1, 0)
        column = np.floor(x + columns / 2).clip(0, columns - 1)
        row = np.floor(rows / 2 - y).clip(0, rows - 1)
        return (row * columns + column).astype(int)

    def is_free(self, position: np.ndarray) -> np.ndarray:
        """Whether positions (..., 2) lie in a free cell of the map (...)."""
        cell = self.cell(position)
        inside = (np.abs(position - self.middle) <= np.array(self.free.shape[::-1]) / 2 * self.scaling).all(-1)
        return inside & self.free.flat[cell]

    def wall_boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the walls as boxes low_W2, high_W2: one per run of cells in a row, and four around the map."""
        rows, columns = self.free.shape
        runs = np.diff(np.pad(~self.free, ((0, 0), (1, 1))).astype(int), axis=1)
        (row, first), last = np.nonzero(runs == 1), np.nonzero(runs == -1)[1]
        x = np.stack([first, last], 1) - columns / 2
        y = np.stack([rows / 2 - row - 1, rows / 2 - row], 1)
        half, inf = np.array([columns / 2, rows / 2]), np.inf
        low = [[-inf, -inf], [half[0], -inf], [-inf, -inf], [-inf, half[1]], *np.stack([x[:, 0], y[:, 0]], 1)]
        high = [[-half[0], inf], [inf, inf], [inf, -half[1]], [inf, inf], *np.stack([x[:, 1], y[:, 1]], 1)]
        return np.array(low) * self.scaling + self.middle, np.array(high) * self.scaling + self.middle


def detour(maze: Maze, start: int, goal: int) -> int | None:
    """The cell nearest to the middle of a shortest path from one cell to another without which another path leads
    there; None where there is no such cell."""
    path = [start]
    while path[-1] != goal and maze.next_cell[goal, path[-1]] != path[-1]:
        path.append(int(maze.next_cell[goal, path[-1]]))
    for cell in sorted(path[1:-1], key=lambda cell: abs(path.index(cell) - (len(path) - 1) / 2)):
        free = maze.free.copy()
        free.flat[cell] = False
        if np.isfinite(ways(free.tobytes(), free.shape)[0][start, goal]):
            return cell
    return None


@lru_cache(maxsize=2)
def ways(free: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lengths of the shortest paths and the next-cell table of a grid, searched breadth-first from every
    cell. In a map of 60 x 60 cells the search takes seconds, and a command makes the same maze several times."""
    cells, is_free = np.arange(len(free)).reshape(shape), np.frombuffer(free, bool).reshape(shape)
    right, down = is_free[:, :-1] & is_free[:, 1:], is_free[:-1] & is_free[1:]
    first = np.concatenate([cells[:, :-1][right], cells[:-1][down]])
    second = np.concatenate([cells[:, 1:][right], cells[1:][down]])
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(cells.size, cells.size))
    lengths, previous = shortest_path(graph, directed=False, unweighted=True, return_predecessors=True)
    return lengths, np.where(previous < 0, cells.ravel(), previous)


def draw_maze(ax: Any, maze: Maze) -> None:
    """Draws the walls on a matplotlib `ax` in the environment's coordinates and fits its limits to the maze. Entrances
    are filled, and exits are not."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Rectangle

    size = maze.scaling
    corners = maze.centre(np.flatnonzero(~maze.free)) - size / 2
    walls = [Rectangle((x, y), size, size) for x, y in corners]
    ax.add_collection(PatchCollection(walls, facecolor=WALL_GREY, linewidth=0))
    for doors, filled in ((maze.entrances, True), (maze.exits, False)):
        for x, y, radius in doors:
            ax.add_patch(Circle((x, y), radius, facecolor=WALL_GREY, edgecolor="0.5", fill=filled))
    half = np.array(maze.free.shape[::-1]) / 2 * size
    (left, bottom), (right, top) = maze.middle - half, maze.middle + half
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])


class SingleGoal(gymnasium.Wrapper):
    """D4RL's single-goal protocol of maze2d, on Gymnasium-Robotics' PointMaze.

    The goal is the exact centre of one cell; the start lies in any cell, including the goal's. The reward is 1 within a
    distance of 0.5 from the goal, else 0; `info["success"]` is the same as a bool. Episodes never terminate.
    """

    def __init__(self, env: gymnasium.Env, goal_cell: tuple[int, int]):
        super().__init__(env)
        self.base: Any = env.unwrapped
        self.maze = Maze(self.base.maze.maze_map, self.base.maze.maze_size_scaling)
        self.goal = self.maze.centre(self.maze.number(*goal_cell))

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        _, info = self.env.reset(seed=seed)
        random = self.base.np_random
        start = self.maze.centre(random.choice(self.maze.cells)) + random.uniform(-START_NOISE, START_NOISE, 2)
        self.base.point_env.set_state(start, START_NOISE * random.standard_normal(2))
        self.base.goal = self.goal.copy()
        self.base.update_target_site_pos()
        state, goal = self.base.point_env.state_vector(), self.goal.copy()
        obs = {"observation": state, "achieved_goal": start, "desired_goal": goal}
        return obs, info | {"success": self._reached(start)}

    def step(self, action: np.ndarray):
        obs, _, terminated, truncated, info = self.env.step(action)
        reached = self._reached(obs["achieved_goal"])
        return obs, float(reached), terminated, truncated, info | {"success": reached}

    def _reached(self, position: np.ndarray) -> bool:
        return bool(np.linalg.norm(position - self.goal) <= RADIUS)


class Detour(gymnasium.Wrapper):
    """A task in a maze whose shortest way is closed by an obstacle; the robot must not enter it.

    The obstacle is a disc as wide as a cell of the maze, near the middle of the way. An episode in which the robot's
    position enters it ends without success. A reset raises ValueError for a task that has no other way.
    """

    obstacle: Disc

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        obs, info = self.env.reset(seed=seed, options=options)
        env: Any = self.unwrapped
        task = env.base.task_infos[info["task_id"] - 1]
        maze: Maze = env.maze
        start, goal = (int(maze.cell(np.array(env.base.ij_to_xy(task[end])))) for end in ("init_ij", "goal_ij"))
        cell = detour(maze, start, goal)
        if cell is None:
            raise ValueError(f"{env.task.env_id}: only one way leads to the goal of task {info['task_id']}, and an "
                             "obstacle would close it; take the protocol ogbench")
        x, y = maze.centre(cell).tolist()
        self.obstacle = Disc(x, y, maze.scaling / 2)
        return obs, info

    def step(self, action: np.ndarray):
        obs, reward, terminated, truncated, info = self.env.step(action)
        if not self.obstacle.contains(*obs["observation"][:2]):
            return obs, reward, terminated, truncated, info
        return obs, 0.0, True, truncated, info | {"success": False}
