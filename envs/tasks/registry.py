"""The table of tasks: environments with their time limits, datasets, reference scores and plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gentraj.data import d4rl_reference
from gentraj.data.ogbench import OWN, kinds, ogbench_tasks

UNKNOWN_HORIZON = (32, 1)
MAZE_HORIZON = (24, 4)  # in OGBench's mazes, whose goals are farther
SINGLE = "singletask[-task{1..5}]-v0"
OGBENCH_TASKS = 5
"""Number of tasks, each with a start and a goal, of every environment of OGBench."""
BEHAVIOURS: dict[str, tuple[str, str]] = {  # kind: its names in Minari and in D4RL
    "medium": ("medium", "medium"), "expert": ("expert", "expert"), "mixed": ("", "medium-replay")}
"""The kinds of data of a locomotion task, named after the policies that collect them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A known environment."""

    env_id: str
    """Gymnasium's id of the environment."""
    max_episode_steps: int
    """The steps after which an episode is truncated."""
    recorded: tuple[str, ...] = ()
    """Minari ids of the datasets that `gentraj data make` records."""
    recorder: str = ""
    """What records them, a key of `gentraj.envs.recording.recipes.RECORDERS`."""
    recipe_steps: int = 0
    """Number of steps that `gentraj data make` records by default, enough to train on."""
    datasets: dict[str, tuple[str, ...]]
    """Ids of other datasets by their publisher; those of OGBench that differ in one word are written as one."""
    references: dict[str, str] = field(default_factory=dict)
    """Reference scores by protocol: the returns that score 0 and 100, or published scores."""
    horizon: tuple[int, int] = UNKNOWN_HORIZON
    """Horizon (in timesteps) and stride (in environment steps) of a plan."""

    def __str__(self) -> str:
        horizon, stride = self.horizon
        lines = [f"{self.env_id}, {self.max_episode_steps} steps; plans of horizon {horizon}, stride {stride}"]
        ids = {"gentraj": self.recorded, **self.datasets}
        lines += [f"  {whose:10} {', '.join(known)}" for whose, known in ids.items() if known]
        return "\n".join([*lines, *(f"  scores     {what}: {score}" for what, score in self.references.items())])


@dataclass(frozen=True, kw_only=True)
class MazeTask(Task):
    """A known maze. Scores of two protocols cannot be compared, so each protocol has its own fields."""

    d4rl_id: str
    """The name under which `gentraj.data.d4rl_reference` has D4RL's reference returns (single-goal protocol)."""
    d4rl_goal: tuple[int, int]
    """Cell (row, column) of the goal in D4RL's single-goal protocol."""
    d4rl_steps: int
    """Number of steps of an episode in D4RL's single-goal protocol."""
    minari_reference: tuple[float, float] | None
    """Minari's reference returns of a random agent and of the replanning controller (random-goal protocol), or None."""


@dataclass(frozen=True, kw_only=True)
class LocomotionTask(Task):
    """A locomotion environment, whose return is normalised by D4RL's reference returns.

    The reference returns are those of D4RL's v2 data, made with Gym's v2 environments and MuJoCo 2.0. Physics, contacts
    and some rewards differ in Gymnasium's v5, so a score is on D4RL's scale but not comparable to the digit. A plan for
    high return is short, as it is made anew in every step (docs/planners.md).
    """

    d4rl_id: str
    """A name under which `gentraj.data.d4rl_reference` has the reference returns; all datasets of an environment share
    them."""
    train_steps: int
    """Number of steps for which PPO trains the policies whose data `gentraj data make` records; 0 if there are none."""


@dataclass(frozen=True, kw_only=True)
class OGBenchTask(Task):
    """An environment of OGBench with goals, such as a robot arm that brings objects to one; an episode has one of five
    starts and goals.

    The reference scores of arms are the success rates that OGBench reports (Park et al. 2025, table 2): 1M training
    steps, 50 episodes for each of the five goals, 8 seeds, and the whole observation as the goal, not just the objects.
    A plan of an arm is long enough for an object's whole path; in a maze, a roadmap leads beyond it.
    """

    base_id: str
    """Id of OGBench's own environment."""
    goal_dims: tuple[int, ...]
    """Entries of the observation that make up a goal: positions of the robot, of the ball or of cubes, and states of
    buttons, drawer and window."""


def is_maze(env: str) -> bool:
    """Whether an environment of OGBench is one of its mazes, with or without a ball."""
    return "maze" in env or "soccer" in env


def _span(reference: tuple[float, float]) -> str:
    return f"returns of {reference[0]:g} to {reference[1]:g} are 0 to 100"


def _pointmaze(name: str, steps: int, recipe_steps: int, horizon: tuple[int, int], d4rl_id: str,
               d4rl_goal: tuple[int, int], d4rl_steps: int, minari: tuple[float, float] | None = None) -> MazeTask:
    references = {f"D4RL, one goal, {d4rl_steps} steps": _span(d4rl_reference(d4rl_id))}
    if minari is not None:
        references[f"Minari, random goals, {steps} steps"] = _span(minari)
    return MazeTask(env_id=f"PointMaze_{name}-v3", max_episode_steps=steps, recipe_steps=recipe_steps, horizon=horizon,
                    recorded=(f"gentraj/pointmaze/{name.lower()}-v0",), recorder="pointmaze", references=references,
                    d4rl_id=d4rl_id, datasets={"Minari": (f"D4RL/pointmaze/{name.lower()}-v2",), "D4RL": (d4rl_id,)},
                    d4rl_goal=d4rl_goal, d4rl_steps=d4rl_steps, minari_reference=minari)


def _locomotion(name: str, env_id: str, train_steps: int = 0) -> LocomotionTask:
    d4rl_id = f"{name}-medium-v2"
    datasets = {"Minari": tuple(f"mujoco/{name}/{kind}-v0" for kind, _ in BEHAVIOURS.values() if kind),
                "D4RL": tuple(f"{name}-{kind}-v2" for _, kind in BEHAVIOURS.values())}
    return LocomotionTask(env_id=env_id, max_episode_steps=1000, recipe_steps=100_000, recorder="behaviours",
                          recorded=tuple(f"gentraj/mujoco/{name}-{kind}-v0" for kind in BEHAVIOURS if train_steps),
                          horizon=(4, 1), datasets=datasets, d4rl_id=d4rl_id, train_steps=train_steps,
                          references={"D4RL, whole episodes": _span(d4rl_reference(d4rl_id))})


def _ogbench(name: str, horizon: tuple[int, int], recorder: str = "", recipe_steps: int = 0,
             scores: str = "") -> OGBenchTask:
    known = ogbench_tasks()[name]
    datasets = {"OGBench": _ogbench_data(name)}
    recorded: tuple[str, ...] = ()
    if recorder == "oracles":
        recorded = (f"{OWN}{name}-v0",)
        datasets = {"relabelled": (f"{OWN}{name}-{SINGLE}",), **datasets}
    if recorder == "navigation":
        recorded = tuple(f"{OWN}{name}-{kind}-v0" for kind in kinds(name))
    return OGBenchTask(env_id=f"OGBench/{name}-v0", max_episode_steps=known["steps"], recipe_steps=recipe_steps,
                       recorded=recorded, recorder=recorder, horizon=horizon, datasets=datasets,
                       references={"OGBench, success in %, play data": scores} if scores else {},
                       base_id=f"{name}-v0", goal_dims=tuple(i for part in known["parts"] for i in part["entries"]))


def _ogbench_data(env: str) -> tuple[str, ...]:
    return tuple(f"{env}-{{{','.join(kinds(env)[:2])}}}-{which}" for which in ("v0", SINGLE))


MAZES: dict[str, MazeTask] = {
    "pointmaze-open": _pointmaze("Open", 300, 100_000, (32, 5), "maze2d-open-v0", (2, 3), 150),
    "pointmaze-umaze": _pointmaze("UMaze", 300, 100_000, (32, 5), "maze2d-umaze-v1", (1, 1), 300, (11.1, 212.8)),
    "pointmaze-medium": _pointmaze("Medium", 600, 1_000_000, (64, 5), "maze2d-medium-v1", (6, 6), 600, (10.1, 428.4)),
    "pointmaze-large": _pointmaze("Large", 800, 1_000_000, (64, 8), "maze2d-large-v1", (7, 9), 800, (5.1, 560.7)),
}
LOCOMOTION: dict[str, LocomotionTask] = {
    "hopper": _locomotion("hopper", "Hopper-v5", 1_000_000),
    "walker2d": _locomotion("walker2d", "Walker2d-v5", 2_000_000),
    "halfcheetah": _locomotion("halfcheetah", "HalfCheetah-v5", 3_000_000),
    "ant": _locomotion("ant", "Ant-v5"),
}
OGBENCH: dict[str, OGBenchTask] = {
    **{f"ogbench/{env}": _ogbench(env, MAZE_HORIZON if is_maze(env) else UNKNOWN_HORIZON) for env in ogbench_tasks()},
    "ogbench/cube-single": _ogbench("cube-single", (20, 4), "oracles", 70_000,
                                    "GCBC 6, GCIVL 53, GCIQL 68, QRL 5, CRL 19, HIQL 15"),
    "ogbench/scene": _ogbench("scene", (24, 4), "oracles", 100_000,
                              "GCBC 5, GCIVL 42, GCIQL 51, QRL 5, CRL 19, HIQL 38"),
    "ogbench/puzzle-3x3": _ogbench("puzzle-3x3", (32, 2), "oracles", 100_000,
                                   "GCBC 2, GCIVL 6, GCIQL 95, QRL 1, CRL 3, HIQL 12"),
    **{f"ogbench/{name}": _ogbench(name, UNKNOWN_HORIZON, "oracles", 400_000)
       for name in ("cube-double", "cube-triple", "cube-quadruple", "cube-octuple",
                    "puzzle-4x4", "puzzle-4x5", "puzzle-4x6")},
    **{f"ogbench/{robot}-{size}": _ogbench(f"{robot}-{size}", MAZE_HORIZON, "navigation", 1_000_000)
       for robot in ("pointmaze", "antmaze") for size in ("medium", "large", "giant", "teleport")},
}
TASKS: dict[str, Task] = {**MAZES, **LOCOMOTION, **OGBENCH}
"""The tasks by the names under which their environments are made."""


def environments() -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Yields the environments of this package: id, module and class, time limit in steps, and arguments.

    One more is a module beside this one and a line here.
    """
    for name, task in OGBENCH.items():
        made_by = "ogbench_envs:MazeGoal" if is_maze(name) else "ogbench_envs:GoalTask"
        yield task.env_id, made_by, task.max_episode_steps, {"name": name.removeprefix("ogbench/")}
    for name, known in ogbench_tasks().items():  # those that observe states
        made_by = "ogbench_envs:MazeSingle" if is_maze(name) else "ogbench_envs:RewardTask"
        for which in ("", *(f"-task{number}" for number in range(1, len(known["goals"]) + 1))):
            base_id = f"{name}-singletask{which}-v0"
            yield f"OGBench/{base_id}", made_by, known["steps"], {"base_id": base_id}
