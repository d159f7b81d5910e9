"""The datasets that `gentraj data make` records on this machine, by the name of their task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gentraj.config import check_known
from gentraj.data import DataError, Episodes, save_minari
from gentraj.data.minari_io import check_new_id, local_ids
from gentraj.data.ogbench import OGBenchName
from gentraj.progress import say
from gentraj.randomness import for_recording

from ..tasks.registry import TASKS
from . import behaviours, navigation, oracles, pointmaze

Record = Callable[..., Episodes]
"""A function (task, steps, seed, *, progress) that returns episodes; the same seed gives the same episodes."""


@dataclass(frozen=True)
class Recipe:
    """How the data of a task are recorded."""

    dataset_id: str
    steps: int
    record: Record
    algorithm: str
    """The name of the agent that acts, stored in the dataset."""
    trains: bool = False
    """Whether the agent is trained first; `record` then takes `train_steps` too."""


RECORDERS: dict[str, tuple[Record, str, bool]] = {
    "pointmaze": (pointmaze.record, "WaypointController", False),
    "behaviours": (behaviours.record, "PPO of stable-baselines3", True),
    "navigation": (navigation.record, "a noisy walker along the shortest paths", False),
    "oracles": (oracles.record, "OGBench's plan oracles", False),
}
"""What records the data of a task, the name of the agent, and whether it is trained first. One more is a module beside
this one and a line here."""


def recipes() -> dict[str, Recipe]:
    """Returns the recipes by task, in the order in which they are shown; a task with several is named by the data."""
    found = dict[str, Recipe]()
    for task_name, task in TASKS.items():
        for dataset_id in task.recorded:
            name = task_name
            if len(task.recorded) > 1:
                name = dataset_id.removeprefix("gentraj/").removesuffix("-v0")
            found[name] = Recipe(dataset_id, task.recipe_steps, *RECORDERS[task.recorder])
    return found


def make_dataset(task: str, steps: int | None = None, seed: int = 0, dataset_id: str | None = None, *,
                 train_steps: int | None = None, overwrite: bool = False, progress: bool = True) -> str:
    """Records `steps` steps of a task as a Minari dataset and returns its id.

    The recorded starts and goals are none of those in which agents are scored with any seed. `steps` and `dataset_id`
    are the recipe's by default. `train_steps` is for tasks whose policies are trained first.
    Raises ValueError for an unknown task and for numbers of steps below 1, ImportError if a package is missing, and
    `DataError` if the id is malformed, or exists already and `overwrite` is false.
    """
    available = recipes()
    check_known((task,), available, "task to record")
    recipe = available[task]
    if steps is None:
        steps = recipe.steps
    for name, number in (("steps", steps), ("train_steps", train_steps)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; record at least 1")
    dataset_id = dataset_id or recipe.dataset_id
    check_new_id(dataset_id, overwrite=overwrite)  # before the minutes that recording may take
    if train_steps is not None and not recipe.trains:
        raise ValueError(f"{task} is recorded with {recipe.algorithm}, which is not trained; leave train_steps out")
    training = {"train_steps": train_steps} if recipe.trains else {}
    recorded = recipe.record(task, steps, for_recording(seed), progress=progress, **training)
    save_minari(recorded, dataset_id, overwrite=overwrite, algorithm=recipe.algorithm,
                description=f"{task}, {steps} steps, seed {seed}")
    return dataset_id


def make_missing(dataset: str, *, progress: bool = True) -> str:
    """Records a task's own dataset if `dataset` is its id, or relabels it, and it does not exist yet, and says so.
    Returns `dataset`."""
    name = OGBenchName.of(dataset)
    source = name.source if name else dataset
    task = next((name for name, recipe in recipes().items() if source == recipe.dataset_id), None)
    if task is None or source in local_ids():
        return dataset
    say(f"{source} is not on this machine, and is recorded first, as by `gentraj data make {task}`")
    try:
        make_dataset(task, progress=progress)
    except DataError:
        if source not in local_ids():  # else another process has recorded the same meanwhile
            raise
    return dataset
