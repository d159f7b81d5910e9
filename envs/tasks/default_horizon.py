"""How long a trajectory must be to cross an environment."""

from __future__ import annotations

from ..making import recorded_factory
from .registry import MANIPULATION

STEPS_PER_CELL = 24  # of PointMaze's data-collecting controller, generously
HORIZONS = {32: 6, 64: 12}  # rows, and the longest stride at which they are dense enough to follow round a corner
LONGEST = 128
UNKNOWN = (32, 1)


def default_horizon(env: str | None) -> tuple[int, int]:
    """(horizon, stride) for `Episodes.env`: in a maze the longest of its shortest ways fits, at few rows.

    A task of manipulation has its own; (32, 1) where the environment is unknown or another one.
    """
    made = recorded_factory(env)
    maze = made.maze if made else None
    if made is None or maze is None:
        return next((task.horizon for task in MANIPULATION.values() if made and task.env_id == made.env_id), UNKNOWN)
    steps = STEPS_PER_CELL * maze.longest_way
    horizon = next((rows for rows, stride in HORIZONS.items() if steps <= (rows - 1) * stride), LONGEST)
    return horizon, -(-steps // (horizon - 1))
