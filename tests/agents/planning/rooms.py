"""Rooms with walls of any thickness, who walks about in them at random, and who follows ways in them.

`python tests/agents/planning/rooms.py` prints how many of 30 agents get to the other side in the data of three seeds.
"""

from dataclasses import dataclass

import numpy as np
import torch

from gentraj.agents.roadmap.detours import Detours
from gentraj.agents.roadmap.far_goals import FarGoals, RoadmapConfig, roadmap_of
from gentraj.agents.roadmap.walks import Walks

STEP = 0.048  # at full speed, as in PointMaze
WIDTH, HEIGHT = 4.0, 3.0
GAP = 0.6  # between the end of a wall and the end of the room


@dataclass
class Room:
    """A room of WIDTH x HEIGHT, with walls from a point to another that are closed, or closed to whom goes up."""

    wall_S22: np.ndarray
    only_up: bool = False
    width: float = WIDTH
    height: float = HEIGHT

    def hits(self, from_B2: np.ndarray, to_B2: np.ndarray) -> np.ndarray:
        """(B,) whether a straight step meets a wall, or leaves the room."""
        a_S2, b_S2 = self.wall_S22[:, 0], self.wall_S22[:, 1]
        crosses_BS = (_side(a_S2, b_S2, from_B2[:, None]) * _side(a_S2, b_S2, to_B2[:, None]) <= 0) & (
            _side(from_B2[:, None], to_B2[:, None], a_S2) * _side(from_B2[:, None], to_B2[:, None], b_S2) <= 0)
        if self.only_up:
            crosses_BS &= (to_B2[:, 1] > from_B2[:, 1])[:, None]
        is_out_B = (to_B2 < 0).any(1) | (to_B2 > [self.width, self.height]).any(1)
        return np.asarray(crosses_BS.any(1) | is_out_B)

    def step(self, at_B2: np.ndarray, by_B2: np.ndarray) -> np.ndarray:
        """Where a step leads to: along a wall where one is in the way."""
        at_B2 = at_B2.copy()
        left_B = np.ones(len(at_B2), bool)
        for along_2 in ((1, 1), (1, 0), (0, 1)):
            to_B2 = at_B2 + by_B2 * along_2
            may_B = left_B & ~self.hits(at_B2, to_B2)
            at_B2[may_B] = to_B2[may_B]
            left_B &= ~may_B
        return at_B2

    def recorded(self, episodes: int = 60, steps: int = 1000, noise: float = 0.0,
                 seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The positions of who walks about at random, with the number of the episode of each."""
        rng = np.random.default_rng(seed)
        at_B2 = rng.uniform(0, [0.45 * self.width, self.height], (episodes, 2))
        at_B2[::2, 0] = self.width - at_B2[::2, 0]
        heading_B = rng.uniform(0, 2 * np.pi, episodes)
        rows = [at_B2]
        for _ in range(steps - 1):
            heading_B = heading_B + rng.normal(0, 0.25, episodes)
            by_B2 = STEP * rng.uniform(0.7, 1.05, (episodes, 1)) * np.stack([np.cos(heading_B), np.sin(heading_B)], 1)
            is_hit_B = self.hits(rows[-1], rows[-1] + by_B2)
            heading_B[is_hit_B] += rng.uniform(0, np.pi, episodes)[is_hit_B]
            rows.append(self.step(rows[-1], by_B2))
        position_BT2 = np.stack(rows, 1)
        position_BT2 = position_BT2 + noise * rng.normal(size=position_BT2.shape)
        return position_BT2.reshape(-1, 2).astype(np.float32), np.repeat(np.arange(episodes), steps)

    def false(self, road: Walks) -> int:
        """How many passages of a roadmap lead straight through a wall."""
        from_E2, to_E2 = road.graph.place_PG[road.graph.edge_E2].swapaxes(0, 1)
        return int(self.hits(from_E2, to_E2).sum())

    def reached(self, far: FarGoals, start_B2: np.ndarray, goal_B2: np.ndarray, steps: int = 500, *,
                detours: bool = True) -> np.ndarray:
        """(B,) the steps after which an agent is at its goal that heads straight for the places it is given; infinite
        where it is not in so many."""
        every_B = torch.ones(len(start_B2), dtype=torch.bool)
        course = Detours(far, 4, len(start_B2))
        at_B2, took_B = start_B2.copy(), np.full(len(start_B2), np.inf)
        goal_BG = torch.tensor(goal_B2, dtype=torch.float32)
        aims = far.aim(torch.tensor(start_B2, dtype=torch.float32), goal_BG)
        for t in range(steps):
            if t % 4 == 0:
                obs_BO = torch.tensor(at_B2, dtype=torch.float32)
                aims = course.aim(every_B, obs_BO, goal_BG) if detours else far.aim(obs_BO, goal_BG)
            ahead_B2 = aims.place_BG.numpy().astype(float) - at_B2
            length_B1 = np.linalg.norm(ahead_B2, axis=1, keepdims=True)
            at_B2 = self.step(at_B2, ahead_B2 * np.minimum(1, STEP / np.maximum(length_B1, 1e-9)))
            is_there_B = np.linalg.norm(at_B2 - goal_B2, axis=1) < STEP
            took_B = np.where(is_there_B, np.minimum(took_B, t), took_B)
        return took_B


def road(recorded: tuple[np.ndarray, np.ndarray], places: int = 2000) -> Walks:
    """The roadmap of recorded positions."""
    found = roadmap_of(*recorded, places)
    assert isinstance(found, Walks)
    return found


def partition(thickness: float) -> Room:
    """A wall in the middle, which one goes round at its upper end."""
    left, right, top = WIDTH / 2 - thickness / 2, WIDTH / 2 + thickness / 2, HEIGHT - GAP
    walls = [[(left, 0), (left, top)], [(right, 0), (right, top)], [(left, top), (right, top)]]
    return Room(np.array(walls, float))


def ledge() -> Room:
    """A ledge at half of the height, which can be gone down anywhere, and gone up only at its right end."""
    return Room(np.array([[(0, HEIGHT / 2), (WIDTH - GAP, HEIGHT / 2)]], float), only_up=True)


def _side(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (b[..., 0] - a[..., 0]) * (x[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (x[..., 0] - a[..., 0])


def sides(room: Room, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random positions on both sides of a partition, or below and above a ledge."""
    rng = np.random.default_rng(seed)
    if room.only_up:
        return rng.uniform((0.1, 0.2), (3.9, 1.3), (count, 2)), rng.uniform((0.1, 1.7), (3.9, 2.8), (count, 2))
    return rng.uniform((0.2, 0.1), (1.8, 2.9), (count, 2)), rng.uniform((2.2, 0.1), (3.8, 2.9), (count, 2))


if __name__ == "__main__":
    worlds = {f"a wall of {width}": partition(width) for width in (0.02, 0.05, 0.1, 0.2, 0.4)}
    for name, room in (worlds | {"a ledge": ledge(), "no wall": Room(np.zeros((0, 2, 2)))}).items():
        reached = []
        for seed in (21, 22, 23):
            far = FarGoals(road(room.recorded(seed=seed)), RoadmapConfig(ahead=4), (0, 1))
            reached.append(int(np.isfinite(room.reached(far, *sides(room, 30, seed))).sum()))
        print(f"{name}: {reached} of 30", flush=True)
