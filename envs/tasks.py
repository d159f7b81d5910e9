"""The tasks: environments with data, time limits and reference scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """A known environment. Scores of two protocols cannot be compared, so each has fields under its own name."""

    env_id: str
    max_episode_steps: int
    dataset_ids: tuple[str, ...]
    """Minari ids; the first is the one that `gentraj data make` records."""
    recipe_steps: int
    """Steps that `gentraj data make` records by default: enough to train on."""
    d4rl_id: str
    """The name that `gentraj.data.d4rl_reference` knows D4RL's reference returns under (single-goal protocol)."""
    d4rl_goal: tuple[int, int]
    """(row, column) of the goal in D4RL's single-goal protocol."""
    d4rl_steps: int
    """Length of an episode in D4RL's single-goal protocol."""
    minari_reference: tuple[float, float] | None
    """Minari's returns of a random agent and of the replanning controller, random-goal protocol, where measured."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)


def _pointmaze(name: str, steps: int, recipe_steps: int, d4rl_id: str, d4rl_goal: tuple[int, int], d4rl_steps: int,
               minari_reference: tuple[float, float] | None) -> Task:
    datasets = f"gentraj/pointmaze/{name.lower()}-v0", f"D4RL/pointmaze/{name.lower()}-v2"
    return Task(f"PointMaze_{name}-v3", steps, datasets, recipe_steps, d4rl_id, d4rl_goal, d4rl_steps, minari_reference)


TASKS: dict[str, Task] = {
    "pointmaze-open": _pointmaze("Open", 300, 100_000, "maze2d-open-v0", (2, 3), 150, None),
    "pointmaze-umaze": _pointmaze("UMaze", 300, 100_000, "maze2d-umaze-v1", (1, 1), 300, (11.1, 212.8)),
    "pointmaze-medium": _pointmaze("Medium", 600, 1_000_000, "maze2d-medium-v1", (6, 6), 600, (10.1, 428.4)),
    "pointmaze-large": _pointmaze("Large", 800, 1_000_000, "maze2d-large-v1", (7, 9), 800, (5.1, 560.7)),
}


def find_task(name: str) -> Task:
    """The task of that name. Raises ValueError listing those there are."""
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]
