"""Navigation data in OGBench's mazes by its own rules: a noisy walker follows the shortest path from cell to cell.

The walker is a point, which moves in the direction of its action, or an ant that was trained to walk in a given
direction. The rules are OGBench's (Park et al. 2025, arXiv 2410.20092): *navigate* goes to one random goal after
another, *stitch* to a goal four cells away, where it stays, and *explore* in a random direction that is drawn anew
every 10 steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gentraj.data import Episodes
from gentraj.data.episodes import last_steps
from gentraj.progress import bar
from gentraj.randomness import fold, seeded

from ..making import environment_factory
from ..tasks.maze import Maze
from ..tasks.ogbench_envs import GOAL_KEYS, grid_of, make_base
from ..tasks.registry import OGBENCH
from .walker import Walker

SIDE_BY_SIDE = 25  # episodes
EPISODE_STEPS = {"navigate": 1000, "stitch": 200, "explore": 500}
GIANT_STEPS = 2000  # of an episode that navigates a giant maze
NOISE = {"point": 0.5, "ant": 0.2}  # standard deviation of the noise on the actions
EXPLORING_NOISE = 1.0  # the same for explore
STITCH_CELLS = 4  # on the way from the start of an episode to its goal
DIRECTION_STEPS = 10  # for which an explorer keeps its direction


def record(task: str, steps: int, seed: int = 0, *, progress: bool = True) -> Episodes:
    """Records at least `steps` steps of "ogbench/MAZE-KIND" in whole episodes, in which the rewards are 0.

    They are 200 steps long for stitch, 500 for explore, and 1,000 for navigate, or 2,000 in a giant maze. The same seed
    gives the same episodes, and a longer recording begins like a shorter one. Raises ImportError, in one line, without
    the package ogbench.
    """
    maze, kind = task.rsplit("-", 1)
    T = EPISODE_STEPS[kind]
    if kind == "navigate" and maze.endswith("giant"):
        T = GIANT_STEPS
    E = -(-steps // T)
    walker = None
    noise = NOISE["point"]
    if "antmaze" in maze:
        walker = Walker()
        noise = NOISE["ant"]
    if kind == "explore":
        noise = EXPLORING_NOISE
    bases = [make_base(OGBENCH[maze].base_id, terminate_at_goal=False) for _ in range(SIDE_BY_SIDE)]
    crowd = Crowd(bases, kind, noise, walker)
    obs = []
    act = []
    with bar(E * T, f"recording {task}", shown=progress) as done:
        for first in range(0, E, SIDE_BY_SIDE):
            with seeded(fold(seed, first)):  # OGBench's mazes draw from numpy's global generator
                crowd.begin(np.random.default_rng(fold(seed, first)))
                for _ in range(T):
                    crowd.step()
                    done.update(min(SIDE_BY_SIDE, E - first))
            obs += list(np.stack(crowd.obs, 1))
            act += list(np.stack(crowd.act, 1))
    lengths = np.full(E, T)
    return Episodes(np.concatenate(obs[:E]), np.concatenate(act[:E]), np.zeros(E * T, np.float32),
                    np.zeros(E * T, bool), last_steps(lengths), lengths, goal_dims=OGBENCH[maze].goal_dims,
                    obs_keys=GOAL_KEYS[:1], env=environment_factory(maze).spec_json, name=task)


class Crowd:
    """Points or ants in several copies of a maze that are stepped side by side, each towards a goal of its own."""

    def __init__(self, bases: list[Any], kind: str, noise: float, walker: Walker | None = None):
        self.bases, self.kind = bases, kind
        self.noise, self.walker = noise, walker
        self.grid = grid_of(bases[0])
        self.crossings = crossings(self.grid)

    def begin(self, rng: np.random.Generator) -> None:
        """Begins an episode in each maze, in any of its cells."""
        self.rng = rng
        self.goal_E2 = np.empty((len(self.bases), 2))
        first = []
        for e, base in enumerate(self.bases):
            start = rng.choice(self.grid.cells)
            task = {"init_ij": self._ij(start), "goal_ij": self._ij(self._goal_from(start))}
            base.action_space.seed(int(rng.integers(2**31)))
            first.append(base.reset(seed=int(rng.integers(2**31)), options={"task_info": task})[0])
            self.goal_E2[e] = base.cur_goal_xy
        self.obs = [np.array(first, np.float32)]
        self.act: list[np.ndarray] = []

    def step(self) -> None:
        """One step in each maze; who navigates and has reached its goal is given another."""
        at_E2 = np.array([base.get_xy() for base in self.bases])
        if self.kind != "explore":
            next_cell_E = self.grid.next_cell[self.grid.cell(self.goal_E2), self.grid.cell(at_E2)]
            self.direction_E2 = unit(self.grid.centre(next_cell_E) - at_E2)
        elif len(self.act) % DIRECTION_STEPS == 0:
            self.direction_E2 = unit(self.rng.standard_normal(at_E2.shape))
        act_EA = self.direction_E2
        if self.walker is not None:
            act_EA = self.walker.act(self.obs[-1], self.direction_E2)
        noise_EA = self.noise * self.rng.standard_normal(act_EA.shape)
        self.act.append(np.clip(act_EA + noise_EA, -1, 1).astype(np.float32))
        after = []
        for e, base in enumerate(self.bases):
            obs, *_, info = base.step(self.act[-1][e])
            after.append(obs)
            if info["success"] and self.kind == "navigate":
                base.set_goal(goal_xy=base.add_noise(base.ij_to_xy(self._ij(self.rng.choice(self.crossings)))))
                self.goal_E2[e] = base.cur_goal_xy
        self.obs.append(np.array(after, np.float32))

    def _goal_from(self, start: int) -> int:
        """The cell of a goal: four cells from the start for stitch, else any that is not in a corridor."""
        if self.kind != "stitch":
            return self.rng.choice(self.crossings)
        far = np.flatnonzero(self.grid.path_lengths[start] == STITCH_CELLS)
        return self.rng.choice(far) if len(far) else start

    def _ij(self, cell: int) -> tuple[int, int]:
        """OGBench's row and column of a cell; its rows grow with y."""
        rows, columns = self.grid.free.shape
        return rows - 1 - cell // columns, cell % columns


def crossings(grid: Maze) -> np.ndarray:
    """The cells that are not in a corridor, which is open on two opposite sides and closed on the others."""
    free = np.pad(grid.free, 1)
    up, down = free[:-2, 1:-1], free[2:, 1:-1]
    left, right = free[1:-1, :-2], free[1:-1, 2:]
    corridor = (up & down & ~left & ~right) | (left & right & ~up & ~down)
    return np.flatnonzero(grid.free & ~corridor)


def unit(vector_E2: np.ndarray) -> np.ndarray:
    """The vectors with length 1."""
    return vector_E2 / (np.linalg.norm(vector_E2, axis=1, keepdims=True) + 1e-6)
