"""The tasks: mazes, locomotion, manipulation; their time limits, datasets and reference scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gentraj.data.d4rl import d4rl_table, single_task
from gentraj.data.ogbench import ogbench_tasks


@dataclass(frozen=True)
class Task:
    """A known maze. Scores of two protocols cannot be compared, so each protocol has its own fields."""

    env_id: str
    """Gymnasium's id of the environment."""
    max_episode_steps: int
    """The steps after which an episode is truncated."""
    dataset_ids: tuple[str, ...]
    """Minari dataset ids; `gentraj data make` records the first one."""
    recipe_steps: int
    """Number of steps that `gentraj data make` records by default, enough to train on."""
    d4rl_id: str
    """The name under which `gentraj.data.d4rl_reference` has D4RL's reference returns (single-goal protocol)."""
    d4rl_goal: tuple[int, int]
    """Cell (row, column) of the goal in D4RL's single-goal protocol."""
    d4rl_steps: int
    """Number of steps of an episode in D4RL's single-goal protocol."""
    minari_reference: tuple[float, float] | None
    """Minari's reference returns of a random agent and of the replanning controller (random-goal protocol), or None."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """The arguments of the environment."""


@dataclass(frozen=True)
class LocomotionTask:
    """A locomotion environment, whose return is normalised by D4RL's reference returns.

    The reference returns are those of D4RL's v2 data, made with Gym's v2 environments and MuJoCo 2.0. Physics, contacts
    and some rewards differ in Gymnasium's v5, so a score is on D4RL's scale but not comparable to the digit.
    """

    env_id: str
    """Gymnasium's id of the environment."""
    max_episode_steps: int
    """The steps after which an episode is truncated."""
    d4rl_id: str
    """A name under which `gentraj.data.d4rl_reference` has the reference returns; all datasets of an environment share
    them."""
    train_steps: int = 0
    """Number of steps for which PPO trains the policies whose data `gentraj data make` records; 0 if there are none."""
    horizon: tuple[int, int] = (4, 1)
    """Horizon and stride of a plan for high return, which is made anew in every step (docs/planners.md)."""


@dataclass(frozen=True)
class ManipulationTask:
    """A robot arm of OGBench that brings objects to a goal; an episode has one of five starts and goals."""

    env_id: str
    """Id of the environment of `gentraj.envs.tasks.manipulation`."""
    base_id: str
    """Id of OGBench's own environment."""
    max_episode_steps: int
    """The steps after which an episode is truncated."""
    goal_dims: tuple[int, ...]
    """Entries of the observation that make up a goal: positions of cubes, states of buttons, drawer and window."""
    dataset_ids: tuple[str, ...]
    """The Minari id that `gentraj data make` records, and the name of OGBench's own file."""
    recipe_steps: int
    """Number of steps that `gentraj data make` records by default."""
    horizon: tuple[int, int]
    """Horizon and stride of a plan, long enough for an object's whole path."""
    published: dict[str, float]
    """Success rates in % that OGBench reports for its play data (Park et al. 2025, table 2): 1M training steps, 50
    episodes for each of the five goals, 8 seeds, and the whole observation as the goal, not just the objects."""


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
"""The tasks in mazes by their names."""

OGBENCH_TASKS = 5
"""Number of tasks, each with a start and a goal, of every environment of OGBench."""
PUBLISHED = "GCBC", "GCIVL", "GCIQL", "QRL", "CRL", "HIQL"


def _ogbench(name: str, steps: int, goal_dims: tuple[int, ...], recipe_steps: int, horizon: tuple[int, int],
             scores: tuple[float, ...]) -> ManipulationTask:
    published: dict[str, float] = dict(zip(PUBLISHED, scores, strict=True))
    return ManipulationTask(f"OGBench/{name}-v0", f"{name}-v0", steps, goal_dims,
                            (f"gentraj/ogbench/{name}-v0", f"{name}-play-v0"), recipe_steps, horizon, published)


MANIPULATION: dict[str, ManipulationTask] = {
    "ogbench/cube-single": _ogbench("cube-single", 200, (19, 20, 21), 70_000, (20, 4), (6, 53, 68, 5, 19, 15)),
    "ogbench/scene": _ogbench("scene", 750, (19, 20, 21, 29, 33, 36, 38), 100_000, (24, 4), (5, 42, 51, 5, 19, 38)),
    "ogbench/puzzle-3x3": _ogbench("puzzle-3x3", 500, tuple(range(20, 56, 4)), 100_000, (32, 2), (2, 6, 95, 1, 4, 12)),
}


D4RL_ENVIRONMENTS = {"antmaze": "d4rl:AntMaze", "kitchen": "d4rl:Kitchen"}
"""The classes of D4RL's environments by what the ids of their data begin with."""


def environments() -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Yields the environments of this package: id, module and class, time limit in steps, and arguments.

    One more is a module beside this one and a line here.
    """
    for name, task in MANIPULATION.items():
        yield (task.env_id, "manipulation:Manipulation", task.max_episode_steps,
               {"name": name.removeprefix("ogbench/")})
    for name, known in ogbench_tasks().items():  # those that observe states
        for which in ("", *(f"-task{number}" for number in range(1, len(known["goals"]) + 1))):
            base_id = f"{name}-singletask{which}-v0"
            yield f"OGBench/{base_id}", "manipulation:SingleTask", known["steps"], {"base_id": base_id}
    for dataset_id in d4rl_table():
        if (known := single_task(dataset_id)) is not None:
            made_by = D4RL_ENVIRONMENTS[dataset_id.partition("-")[0]]
            yield f"D4RL/{dataset_id}", made_by, known.steps, {"dataset_id": dataset_id}


LOCOMOTION: dict[str, LocomotionTask] = {
    "hopper": LocomotionTask("Hopper-v5", 1000, "hopper-medium-v2", 1_000_000),
    "walker2d": LocomotionTask("Walker2d-v5", 1000, "walker2d-medium-v2", 2_000_000),
    "halfcheetah": LocomotionTask("HalfCheetah-v5", 1000, "halfcheetah-medium-v2", 3_000_000),
    "ant": LocomotionTask("Ant-v5", 1000, "ant-medium-v2"),
}

BEHAVIOURS: dict[str, tuple[str, str]] = {  # kind: its names in Minari and in D4RL
    "medium": ("medium", "medium"), "expert": ("expert", "expert"), "mixed": ("", "medium-replay")}
"""The kinds of data of a locomotion task, named after the policies that collect them."""
BEHAVIOUR_STEPS = 100_000
"""Number of steps that `gentraj data make` records of each kind by default."""
