"""The tasks: mazes with data, locomotion; their time limits and reference scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """A known maze. Scores of two protocols cannot be compared, so each has fields under its own name."""

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


@dataclass(frozen=True)
class LocomotionTask:
    """An environment without goals, whose native return D4RL's reference returns normalise.

    The references are of D4RL's v2 data, made with Gym's v2 environments and MuJoCo 2.0. The physics, the contacts and
    some rewards of Gymnasium's v5 are others, so a score is on D4RL's scale but not comparable to the digit.
    """

    env_id: str
    max_episode_steps: int
    d4rl_id: str
    """A name that `gentraj.data.d4rl_reference` knows them under: those of all datasets of an environment are alike."""


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

LOCOMOTION: dict[str, LocomotionTask] = {
    "hopper": LocomotionTask("Hopper-v5", 1000, "hopper-medium-v2"),
    "walker2d": LocomotionTask("Walker2d-v5", 1000, "walker2d-medium-v2"),
    "halfcheetah": LocomotionTask("HalfCheetah-v5", 1000, "halfcheetah-medium-v2"),
    "ant": LocomotionTask("Ant-v5", 1000, "ant-medium-v2"),
}


def find_task(name: str) -> Task:
    """The task of that name. Raises ValueError listing those there are."""
    if name not in TASKS:
        raise ValueError(f"unknown task '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]
