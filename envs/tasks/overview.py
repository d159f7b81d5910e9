"""An overview of the tasks: environments, datasets, reference scores with their protocols, and horizons of plans."""

from __future__ import annotations

from dataclasses import dataclass

from gentraj.data import d4rl_reference
from gentraj.data.d4rl import SINGLE_TASKS, SingleTask, d4rl_table
from gentraj.data.ogbench import OWN, kinds, ogbench_tasks

from ..making import recorded_factory
from .registry import BEHAVIOURS, LOCOMOTION, MANIPULATION, TASKS, LocomotionTask, ManipulationTask, Task

STEPS_PER_CELL = 24  # a generous bound for PointMaze's data-collecting controller
HORIZONS = {32: 6, 64: 12}  # horizon: the longest stride at which a plan is dense enough to follow round a corner
LONGEST = 128
UNKNOWN = (32, 1)
SINGLE = "singletask[-task{1..5}]-v0"


@dataclass(frozen=True)
class Row:
    """An overview of one task."""

    name: str
    env_id: str
    max_episode_steps: int
    horizon: tuple[int, int]
    """Horizon (in timesteps) and stride (in environment steps) of a plan."""
    datasets: dict[str, tuple[str, ...]]
    """Dataset ids by their publisher; those of OGBench that differ in one word are written as one."""
    references: dict[str, str]
    """Reference scores by protocol: the returns that score 0 and 100, or published scores."""

    def __str__(self) -> str:
        horizon, stride = self.horizon
        lines = [f"{self.name}: {self.env_id}, {self.max_episode_steps} steps; plans of horizon {horizon}, "
                 f"stride {stride}"]
        lines += [f"  {whose:8} {', '.join(ids)}" for whose, ids in self.datasets.items()]
        return "\n".join([*lines, *(f"  scores   {what}: {score}" for what, score in self.references.items())])


def table() -> list[Row]:
    """Returns the overviews of all tasks."""
    return [*(_maze(name, task) for name, task in TASKS.items()),
            *(_locomotion(name, task) for name, task in LOCOMOTION.items()),
            *(_manipulation(name, task) for name, task in MANIPULATION.items()),
            *(_single_task(name, task) for name, task in SINGLE_TASKS.items()),
            *(_ogbench(env) for env in ogbench_tasks() if f"ogbench/{env}" not in MANIPULATION)]


def default_horizon(env: str | None) -> tuple[int, int]:
    """Returns (horizon, stride) of plans for an environment (`Episodes.env`).

    In a maze the longest of its shortest paths fits into a plan of few timesteps. A manipulation task has its own
    values. For any other environment they are (32, 1).
    """
    factory = recorded_factory(env)
    if factory is None:
        return UNKNOWN
    if (maze := factory.maze) is None:
        return next((task.horizon for task in MANIPULATION.values() if task.env_id == factory.env_id), UNKNOWN)
    steps = STEPS_PER_CELL * maze.longest_way
    horizon = next((H for H, stride in HORIZONS.items() if steps <= (H - 1) * stride), LONGEST)
    return horizon, max(-(-steps // (horizon - 1)), 1)


def _maze(name: str, task: Task) -> Row:
    ours, minari = task.dataset_ids
    references = {f"D4RL, one goal, {task.d4rl_steps} steps": _span(d4rl_reference(task.d4rl_id))}
    if task.minari_reference:
        references[f"Minari, random goals, {task.max_episode_steps} steps"] = _span(task.minari_reference)
    return Row(name, task.env_id, task.max_episode_steps, default_horizon(name),
               {"gentraj": (ours,), "Minari": (minari,), "D4RL": (task.d4rl_id,)}, references)


def _locomotion(name: str, task: LocomotionTask) -> Row:
    datasets = {"gentraj": tuple(f"gentraj/mujoco/{name}-{kind}-v0" for kind in BEHAVIOURS if task.train_steps),
                "Minari": tuple(f"mujoco/{name}/{kind}-v0" for kind, _ in BEHAVIOURS.values() if kind),
                "D4RL": tuple(f"{name}-{kind}-v2" for _, kind in BEHAVIOURS.values())}
    return Row(name, task.env_id, task.max_episode_steps, task.horizon,
               {whose: ids for whose, ids in datasets.items() if ids},
               {"D4RL, whole episodes": _span(d4rl_reference(task.d4rl_id))})


def _manipulation(name: str, task: ManipulationTask) -> Row:
    env, scores = name.removeprefix("ogbench/"), ", ".join(f"{who} {score:g}" for who, score in task.published.items())
    datasets = {"gentraj": (task.dataset_ids[0], f"{OWN}{env}-{SINGLE}"), "OGBench": _ogbench_data(env)}
    return Row(name, task.env_id, task.max_episode_steps, task.horizon, datasets,
               {"OGBench, success in %, play data": scores})


def _single_task(name: str, task: SingleTask) -> Row:
    ids = [each for each in d4rl_table() if each.startswith(f"{name}-")]
    of, _, _ = name.partition("-")
    minari = dict.fromkeys(f"D4RL/{of}/{each.removeprefix(f'{of}-').rpartition('-')[0]}-v{task.minari_version}"
                           for each in ids)
    return Row(f"D4RL/{name}", f"D4RL/{name}-...", task.steps, UNKNOWN, {"Minari": tuple(minari), "D4RL": tuple(ids)},
               {"D4RL": _span(d4rl_reference(ids[0]))})


def _ogbench(env: str) -> Row:
    return Row(f"ogbench/{env}", f"OGBench/{env}-singletask-v0", ogbench_tasks()[env]["steps"], UNKNOWN,
               {"OGBench": _ogbench_data(env)}, {})


def _ogbench_data(env: str) -> tuple[str, ...]:
    return tuple(f"{env}-{{{','.join(kinds(env)[:2])}}}-{which}" for which in ("v0", SINGLE))


def _span(reference: tuple[float, float]) -> str:
    return f"returns of {reference[0]:g} to {reference[1]:g} are 0 to 100"
