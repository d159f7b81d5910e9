"""What is known of each task: environment, data, reference scores with their protocols, how long a plan should be."""

from __future__ import annotations

from dataclasses import dataclass

from gentraj.data import d4rl_reference

from .default_horizon import default_horizon
from .registry import BEHAVIOURS, LOCOMOTION, MANIPULATION, TASKS, LocomotionTask, ManipulationTask, Task


@dataclass(frozen=True)
class Row:
    """One task."""

    name: str
    env_id: str
    max_episode_steps: int
    horizon: tuple[int, int]
    """Rows and stride of a plan."""
    datasets: dict[str, tuple[str, ...]]
    """By whose they are."""
    references: dict[str, str]
    """By protocol: what is 0 and 100, or published scores."""

    def __str__(self) -> str:
        rows, stride = self.horizon
        lines = [f"{self.name}: {self.env_id}, {self.max_episode_steps} steps; plans of {rows} rows, {stride} apart"]
        lines += [f"  {whose:8} {', '.join(ids)}" for whose, ids in self.datasets.items()]
        return "\n".join([*lines, *(f"  scores   {what}: {score}" for what, score in self.references.items())])


def table() -> list[Row]:
    """Of all tasks."""
    return [*(_maze(name, task) for name, task in TASKS.items()),
            *(_locomotion(name, task) for name, task in LOCOMOTION.items()),
            *(_manipulation(name, task) for name, task in MANIPULATION.items())]


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
    ours, theirs = task.dataset_ids
    scores = ", ".join(f"{agent} {score:g}" for agent, score in task.published.items())
    return Row(name, task.env_id, task.max_episode_steps, task.horizon, {"gentraj": (ours,), "OGBench": (theirs,)},
               {"OGBench, success in %, play data": scores})


def _span(reference: tuple[float, float]) -> str:
    return f"returns of {reference[0]:g} to {reference[1]:g} are 0 to 100"
