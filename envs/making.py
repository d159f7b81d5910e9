"""Imports Gymnasium with all environments registered: gentraj's, the user's, and gymnasium-robotics'; and makes
environments from a task name, a Gymnasium id or the EnvSpec JSON that a dataset stores.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes.util
import difflib
import functools
import importlib
import io
import json
import logging
import os
import re
import reprlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from gentraj.data.minari_io import spec_as_json
from gentraj.process import IMPORTS

from .tasks.maze import Detour, Maze, SingleGoal
from .tasks.metaworld import METAWORLD, SeededReset
from .tasks.registry import (
    MAZES,
    OGBENCH,
    OGBENCH_TASKS,
    TASKS,
    UNKNOWN_HORIZON,
    MazeTask,
    environments,
    is_maze,
)


@functools.cache
def load_gymnasium() -> ModuleType:
    """Returns the `gymnasium` module with gentraj's, the robotics and the user's environments registered.

    MuJoCo is set to render without a screen, if the machine can, and not to write log files. Environments of a package
    that is not installed are unknown (`missing_packages`), or say so when they are made.
    """
    _render_without_screen()
    import gymnasium

    if find_spec("mujoco"):
        import mujoco

        warn = mujoco.set_mju_user_warning  # pyright: ignore[reportAttributeAccessIssue]
        warn(logging.getLogger("mujoco").info)  # else it writes MUJOCO_LOG.TXT into the working directory
    if find_spec("gymnasium_robotics") and find_spec("mujoco"):
        with contextlib.redirect_stderr(io.StringIO()):  # it prints a notice about other environments
            import gymnasium_robotics
        gymnasium.register_envs(gymnasium_robotics)
    for env_id, made_by, steps, kwargs in environments():
        gymnasium.register(env_id, f"gentraj.envs.tasks.{made_by}", max_episode_steps=steps, kwargs=kwargs)
    import_named()
    return gymnasium


def _render_without_screen() -> None:
    """Chooses how MuJoCo renders; before it is imported, as without EGL it may abort."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")


def missing_packages() -> list[str]:
    """Returns the names of the packages with environments that are not installed, as pip knows them."""
    packages = {"gymnasium-robotics": "gymnasium_robotics", "mujoco": "mujoco"}
    return [name for name, module in packages.items() if not find_spec(module)]


def import_named() -> None:
    """Imports the modules named by `gentraj --import`, which register environments.

    Only the user can name modules; data never can. They may also lie in the working directory. Raises ImportError, in
    one line, for whatever goes wrong in a module.
    """
    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):
        _import(name)


def _import(name: str) -> None:
    _render_without_screen()  # a module may import MuJoCo
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(name)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        is_absent = isinstance(error, ModuleNotFoundError) and str(error.name) in (name, name.partition(".")[0])
        why = (f"no module of that name is in {os.getcwd()} or installed" if is_absent else
               f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        raise ImportError(f"the module {name} cannot be imported: {why}") from error


def import_for_all(module: str) -> None:
    """Imports a module that registers environments, here and in every process that is started later.

    Raises what `import_named` raises.
    """
    _import(module)
    before = os.environ.get(IMPORTS, "").split(",")
    os.environ[IMPORTS] = ",".join(dict.fromkeys([*filter(None, before), module]))


def imported(env: str | EnvironmentFactory) -> str:
    """The environment's id, after the module of MODULE:ID has been imported for all processes, as Gymnasium does; the
    EnvSpec of a factory, with its arguments and its time limit.

    Only whoever calls this function names modules; data never do. Raises ValueError for anything else, and what
    `import_named` and `EnvironmentFactory.spec_json` raise.
    """
    if isinstance(env, EnvironmentFactory):
        return env.spec_json
    if not isinstance(env, str):
        raise ValueError(f"the environment is {reprlib.repr(env)}; its id is expected, such as 'Hopper-v5', or what "
                         "`environment_factory` returns, as several environments are made")
    if ":" not in env or env.lstrip().startswith("{"):
        return env
    module, _, env_id = env.rpartition(":")
    import_for_all(module)
    return env_id


ProtocolName = Literal["random-goal", "d4rl-single-goal", "ogbench", "ogbench-detour"]

OGBENCH_PROTOCOLS = ("ogbench", "ogbench-detour")
ROBOTICS_MAZES = ("PointMaze", "AntMaze")
ENDLESS_STEPS = 10_000  # a recording's limit above this says how long was recorded, not how long an episode should be
LIMIT_PER_CELL = 50  # steps: what umaze (300 steps, 6 cells) and medium (600, 11) give for their longest way
SHORTEST_LIMIT = 300
PLANNED_PER_CELL = 24  # steps: a generous bound for PointMaze's data-collecting controller
HORIZONS = {32: 6, 64: 12}  # horizon: the longest stride at which a plan is dense enough to follow round a corner
LONGEST_HORIZON = 128
EVALUATION = {"continuing_task": True, "reset_target": False}  # reaching the goal ends nothing, and the goal stays
RECORDERS = "DataCollector", "HumanRendering", "RecordEpisodeStatistics", "RecordVideo"
KITCHEN, KITCHEN_STEPS = "FrankaKitchen-v1", 280
ONCE = {"remove_task_when_completed": True, "terminate_on_tasks_completed": True}  # a reward of 1 for each task


@dataclass(frozen=True)
class EnvironmentFactory:
    """Makes one environment per call, as in `SyncVectorEnv([factory] * 8)`.

    A factory holds plain data only, so it can be sent to other processes. A call raises ImportError, in one line, where
    a package of the environment is missing, or where its simulator is too new for it.
    """

    env_id: str
    """Gymnasium's id of the environment."""
    kwargs: dict[str, Any]
    """The arguments of the environment."""
    max_episode_steps: int
    """The steps after which an episode is truncated."""
    protocol: ProtocolName = "random-goal"
    """How goals are chosen."""

    def __call__(self) -> Any:
        gymnasium = load_gymnasium()
        try:
            env = gymnasium.make(self.env_id, self.max_episode_steps, disable_env_checker=True, **self.kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ImportError(f"{self.env_id}: {' '.join(str(error).split())}") from error
        except AssertionError as error:
            failed = traceback.extract_tb(error.__traceback__)[-1]
            if str(error) or Path(failed.filename).name != "mujoco_utils.py":
                raise
            raise ImportError(f"{self.env_id}: gymnasium-robotics knows no type of joint of mujoco 3.12 and newer; pip "
                              'install "mujoco<3.12"') from error
        if _is_maze(self.env_id):  # the model is loaded by now, and nobody else deletes its file
            Path(env.unwrapped.tmp_xml_file_path).unlink(missing_ok=True)
        if self.protocol == "d4rl-single-goal" and self.task:
            return SingleGoal(env, self.task.d4rl_goal)
        if self.protocol == "ogbench-detour":
            return Detour(env)
        if self.env_id.startswith(METAWORLD):
            return SeededReset(env)
        return env

    @cached_property
    def pointmaze(self) -> Maze | None:
        """The maze of a PointMaze of Gymnasium-Robotics, whatever its map; None for any other environment."""
        if not self.env_id.startswith("PointMaze") or not _is_maze(self.env_id):
            return None
        return Maze(self.kwargs["maze_map"])

    @cached_property
    def maze(self) -> Maze | None:
        """The maze of the environment, to be drawn: that of a PointMaze, or the attribute `maze` of any environment
        whose class has one. None for any other, and where its package is not installed."""
        if self.pointmaze is not None:
            return self.pointmaze
        try:
            if not hasattr(_made_by(self.env_id), "maze"):
                return None
            with closing(self()) as env:
                found = env.unwrapped.maze
        except ImportError:
            return None
        return found if isinstance(found, Maze) else None

    @property
    def task(self) -> MazeTask | None:
        """The task that has this maze map and sparse rewards; None for any other environment."""
        if self.pointmaze is None or self.kwargs.get("reward_type") != "sparse":
            return None
        return next((task for task in MAZES.values()
                     if _registered(task.env_id)["maze_map"] == self.kwargs["maze_map"]), None)

    @property
    def tasks(self) -> list[EnvironmentFactory]:
        """The environments that a protocol plays one after the other: OGBench's have one for each of five goals."""
        if self.protocol not in OGBENCH_PROTOCOLS or self.kwargs.get("task_id") is not None:
            return [self]
        return [replace(self, kwargs=self.kwargs | {"task_id": number}) for number in range(1, OGBENCH_TASKS + 1)]

    @property
    def spec_json(self) -> str:
        """Gymnasium's EnvSpec of the environment as JSON, to be stored in a dataset.

        Raises ValueError where an argument cannot be written as JSON.
        """
        spec = copy.copy(load_gymnasium().spec(self.env_id))
        spec.kwargs, spec.max_episode_steps = self.kwargs, self.max_episode_steps
        stored = spec_as_json(spec)
        if stored is None:
            raise ValueError(f"{self.env_id}: its arguments {reprlib.repr(self.kwargs)} cannot be stored as JSON; give "
                             "numbers, text, lists and dicts of these")
        return stored


def environment_factory(env: str, overrides: Mapping[str, Any] | None = None, *, max_episode_steps: int | None = None,
                        protocol: ProtocolName = "random-goal") -> EnvironmentFactory:
    """Returns a factory of `env`: a task name, a Gymnasium id or an EnvSpec as JSON (a dataset's `Episodes.env`).

    Mazes are made for evaluation (`EVALUATION`), and a kitchen as D4RL's: a task counts once, and 280 steps at most are
    allowed, whatever the recording used. `overrides` replace any argument, such as `render_mode`, and
    `max_episode_steps` replaces the time limit; an environment that is registered without one needs it. In other
    environments the time limit is that of the recording. If the recording was endless, it is the task's (300, 300, 600
    or 800 steps) for a known map, and for another PointMaze map 50 steps per cell of the longest of its shortest paths,
    at least 300. D4RL's single-goal protocol has a limit of its own. Only the id of a registered environment, plain
    arguments and the time limit are taken from the JSON, so a dataset can neither run code nor have files read. Raises
    ValueError, in one line, for an unknown environment, a malformed JSON, a file name in the JSON, a map that is no
    maze's, a time limit below 1, or an environment without the protocol.
    """
    if not isinstance(overrides, Mapping | None):
        raise TypeError(f"overrides is {overrides!r}; a dict of the environment's arguments is expected, and a time "
                        "limit by max_episode_steps=")
    env_id, kwargs, limit = _parse(env)
    is_robotics = _is_maze(env_id)
    if is_robotics:
        kwargs |= EVALUATION
    if env_id == KITCHEN:
        kwargs, limit = kwargs | ONCE, min(limit or KITCHEN_STEPS, KITCHEN_STEPS)
    kwargs |= overrides or {}
    chosen = kwargs.pop("max_episode_steps", max_episode_steps)
    if chosen is not None and (type(chosen) is bool or not isinstance(chosen, int | np.integer) or chosen < 1):
        raise ValueError(f"{env_id}: max_episode_steps is {chosen!r}; a whole number of at least 1 is expected")
    factory = EnvironmentFactory(env_id, kwargs, int(chosen or limit or 0), protocol)
    if is_robotics:
        Maze(factory.kwargs["maze_map"])  # raises for a map that is none
    if protocol == "d4rl-single-goal":
        if factory.task is None:
            raise ValueError(f"{env_id}: D4RL's single-goal protocol needs a map of {', '.join(MAZES)}")
        return factory if chosen else replace(factory, max_episode_steps=factory.task.d4rl_steps)
    if protocol in OGBENCH_PROTOCOLS:
        known = [task.env_id for task in OGBENCH.values() if protocol == "ogbench" or is_maze(task.env_id)]
        if env_id not in known:
            raise ValueError(f"{env_id}: the protocol {protocol} needs one of OGBench's goal-conditioned environments, "
                             f"{', '.join(known)}")
        if kwargs.get("task_id") is not None:
            raise ValueError(f"{env_id}: task_id is {kwargs['task_id']}, and the protocol plays each of the "
                             f"{OGBENCH_TASKS} tasks; leave it out")
    if chosen is None and not 0 < factory.max_episode_steps <= ENDLESS_STEPS:
        return replace(factory, max_episode_steps=_time_limit(factory))
    return factory


def with_whole_goals(env: str) -> str:
    """The EnvSpec, as JSON, of one of OGBench's environments (`Episodes.env`) whose goals are whole observations.

    Raises ValueError for an environment whose goals are nothing else than they are.
    """
    env_id, *_ = _parse(env)
    if all(task.env_id != env_id for task in OGBENCH.values()):
        raise ValueError(f"{env_id} gives no whole observations as goals, as OGBench's environments for goals do; "
                         "leave context.goals.whole out")
    return environment_factory(env, {"whole_goals": True}).spec_json


@cache
def try_making(env: str) -> None:
    """Makes an environment, and closes it: once in a process, if it can be made. Raises whatever making it raises."""
    environment_factory(env)().close()


def recorded_factory(env: str | None) -> EnvironmentFactory | None:
    """Returns a factory of the environment that data name (`Episodes.env`), or None if it is not registered here."""
    try:
        return environment_factory(env) if env else None
    except ValueError:
        return None


def default_horizon(env: str | None) -> tuple[int, int]:
    """Returns (horizon, stride) of plans for an environment (`Episodes.env`).

    In a maze the longest of its shortest paths fits into a plan of few timesteps. A manipulation task has its own
    values. For any other environment they are (32, 1).
    """
    factory = recorded_factory(env)
    if factory is None:
        return UNKNOWN_HORIZON
    if (maze := factory.pointmaze) is None:
        return next((task.horizon for task in OGBENCH.values() if task.env_id == factory.env_id), UNKNOWN_HORIZON)
    steps = PLANNED_PER_CELL * maze.longest_way
    horizon = next((H for H, stride in HORIZONS.items() if steps <= (H - 1) * stride), LONGEST_HORIZON)
    return horizon, max(-(-steps // (horizon - 1)), 1)


def lost_wrappers(env: str) -> list[str]:
    """Returns the names of the wrappers that an EnvSpec as JSON has and that its environment is made without, as they
    are code. Wrappers that only record or show are left out."""
    env_id, *_ = _parse(env)
    if not env.lstrip().startswith("{"):
        return []
    recorded = json.loads(env).get("additional_wrappers")
    if not isinstance(recorded, list):
        return []
    names = [str(one.get("name")) for one in recorded if isinstance(one, dict)]
    own = [wrapper.name for wrapper in load_gymnasium().spec(env_id).additional_wrappers]
    return [name for name in names if name.isidentifier() and name not in (*RECORDERS, *own)]


def _parse(env: str) -> tuple[str, dict[str, Any], int | None]:
    """Returns the environment id, the arguments and the time limit that a task name, an id or a JSON stands for."""
    if env in TASKS:
        env_id = TASKS[env].env_id
        return env_id, _registered(env_id), TASKS[env].max_episode_steps
    if not env.lstrip().startswith("{"):
        return env, _registered(env), load_gymnasium().spec(env).max_episode_steps
    try:
        spec = json.loads(env)
        env_id = spec["id"]
        kwargs = dict(spec.get("kwargs") or {})
        limit = int(spec.get("max_episode_steps") or 0)
    except (ValueError, RecursionError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not an environment specification: {env[:80]}...") from error
    kwargs.pop("render_mode", None)
    for key, value in kwargs.items():
        if isinstance(value, str) and ("/" in value or "\\" in value or value.endswith(".xml")):
            raise ValueError(f"{env_id}: the dataset names a file, {key}={value!r}; give it in `overrides` to trust it")
    return env_id, _registered(env_id) | kwargs, limit


def _is_maze(env_id: str) -> bool:
    """Whether this is a maze of Gymnasium-Robotics, rather than an environment of somebody else with such a name."""
    spec = load_gymnasium().registry.get(env_id)
    return env_id.startswith(ROBOTICS_MAZES) and spec is not None and "maze_map" in spec.kwargs


def _made_by(env_id: str) -> object:
    """The class, or the function, that makes an environment."""
    from gymnasium.envs.registration import load_env_creator

    entry_point = load_gymnasium().spec(env_id).entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def _registered(env_id: str) -> dict[str, Any]:
    """Returns a copy of the arguments that an environment is registered with; ValueError for an unknown id."""
    registry = load_gymnasium().registry
    if not isinstance(env_id, str) or env_id not in registry:
        module, colon, name = str(env_id).rpartition(":")
        if colon:
            raise ValueError(f"unknown environment '{env_id}'; data name no modules: import {module} before, and "
                             f"name {name}, or give env={env_id}")
        near = _near(str(env_id), [*TASKS, *registry])
        advice = "give a Gymnasium id or a task that `gentraj data list` shows."
        missing = missing_packages()
        if missing:
            advice = f"{' and '.join(missing)} may have it and is not installed: pip install {' '.join(missing)}."
        elif near:
            advice = f"did you mean {' or '.join(near)}?"
        raise ValueError(f"unknown environment '{env_id!s:.80}'; {advice} Import the module that "
                         "registers an environment of your own, as by env=MODULE:ID")
    return copy.deepcopy(registry[env_id].kwargs)


def _near(env_id: str, known: Sequence[str]) -> list[str]:
    """Up to three of the known ids whose names, without namespace and version, are spelt nearly as that of `env_id`."""
    names = {each: re.sub(r"^.*/|-v\d+$", "", each).lower() for each in [*known, env_id]}
    near = difflib.get_close_matches(names[env_id], {names[each] for each in known}, cutoff=0.8)
    return difflib.get_close_matches(env_id, [each for each in known if names[each] in near], cutoff=0)


def _time_limit(factory: EnvironmentFactory) -> int:
    """Returns the number of steps of an episode in an environment whose recording was endless."""
    if factory.task is not None:
        return factory.task.max_episode_steps
    if factory.pointmaze is not None:
        return max(SHORTEST_LIMIT, LIMIT_PER_CELL * factory.pointmaze.longest_way)
    limit = load_gymnasium().spec(factory.env_id).max_episode_steps
    if limit is None:
        raise ValueError(f"{factory.env_id} has no time limit; give "
                         f"environment_factory('{factory.env_id}', max_episode_steps=N), or register it with a limit")
    return limit
