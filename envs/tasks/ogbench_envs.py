"""OGBench's tasks, goal-conditioned or single with rewards, as environments whose episodes are functions of the seed.

Making such an environment needs the package ogbench (pip install 'gentraj[ogbench]').
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box, Dict

from gentraj.randomness import seeded

from ..making import load_gymnasium
from .maze import Disc, Maze
from .registry import OGBENCH, OGBENCH_TASKS, OGBenchTask, is_maze

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


class OGBenchEnv(gymnasium.Env):
    """An environment around one of OGBench's, `base`, whose episodes are functions of the seed."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, base_id: str, render_mode: str | None, **kwargs: object):
        self.render_mode = render_mode
        self.is_arm = not is_maze(base_id)
        self.is_random = "teleport" in base_id
        if not self.is_arm:  # an arm can always be rendered
            kwargs["render_mode"] = render_mode
        self.base = make_base(base_id, **kwargs)
        self.action_space = copy.deepcopy(self.base.action_space)

    def step(self, action: np.ndarray):
        if self.is_random:
            with seeded(self._drawn()):
                obs, reward, terminated, truncated, info = self.base.step(action)
        else:
            obs, reward, terminated, truncated, info = self.base.step(action)
        return self._seen(obs), float(reward), bool(terminated), bool(truncated), {"success": bool(info["success"])}

    def render(self) -> Any:
        return self.base.render()

    def close(self) -> None:
        self.base.close()

    def _seen(self, obs: Any) -> Any:
        """What is observed in the place of the base's observation."""
        return obs

    def _begin(self, action_seed: int, seed: int, options: dict[str, object] | None = None) -> tuple[np.ndarray, dict]:
        """Begins an episode of the base, whose mazes draw from numpy's global generator."""
        self.base.action_space.seed(action_seed)
        with seeded(seed):
            obs, info = self.base.reset(seed=seed, options=options)
        if self.is_arm:
            obs = settled(self.base)
        return obs, info

    def _drawn(self) -> int:
        return int(self.np_random.integers(2**31))


class InMaze:
    """What environments in one of OGBench's mazes have in addition."""

    base: Any

    @property
    def maze(self) -> Maze:
        """The walls, to be drawn."""
        return grid_of(self.base)

    @property
    def goal_radius(self) -> float:
        """The distance from the goal within which it counts as reached."""
        return float(self.base._goal_tol)

    def place(self, obs_O: np.ndarray, goal_G: np.ndarray) -> None:
        """Sets the simulator to the state that an observation (O,) shows, at rest if it shows positions only, and the
        goal to (G,), which may be empty. Raises ValueError for an observation of something else."""
        model = self.base.model
        if len(obs_O) not in (model.nq, model.nq + model.nv):
            raise ValueError(f"an observation of {len(obs_O)} entries does not tell the state of the robot; {model.nq} "
                             f"positions, or with {model.nv} velocities, are expected")
        state_S = np.zeros(model.nq + model.nv)
        state_S[: len(obs_O)] = obs_O
        self.base.set_state(state_S[: model.nq], state_S[model.nq :])
        self._set_goal(goal_G)

    def move(self, position_2: np.ndarray, goal_G: np.ndarray) -> None:
        """Moves the robot to (x, y), as it stands, and the goal to (G,), which may be empty."""
        self.base.set_xy(position_2)
        self._set_goal(goal_G)

    def _set_goal(self, goal_G: np.ndarray) -> None:
        if len(goal_G):
            self.goal = np.asarray(goal_G, float)
            self.base.set_goal(goal_xy=self._goal_xy())

    def _goal_xy(self) -> np.ndarray:
        """(2,) where the goal is."""
        return self.goal


class GoalTask(OGBenchEnv):
    """An environment of OGBench for goals; each episode has the start and the goal of one of its five tasks.

    The seed draws the task, unless `task_id` or options["task_id"] (1 to 5) names it. The goal is OGBench's oracle
    representation: where the robot, the ball or the objects should be, the entries `goal_dims` of the observation; or,
    with `whole_goals`, a whole observation in which they are there, as in OGBench's own environments. When they are
    there, the reward is 1, `info["success"]` is true and the episode terminates. Episodes are functions of the seed,
    unlike in OGBench's own environments, which draw from numpy's global generator. Raises ValueError for another
    `task_id`.
    """

    def __init__(self, name: str, render_mode: str | None = None, task_id: int | None = None,
                 whole_goals: bool = False):
        if task_id is not None and task_id not in range(1, OGBENCH_TASKS + 1):
            raise ValueError(f"task_id is {task_id!r}; a number from 1 to {OGBENCH_TASKS}, or None for one that the "
                             "seed draws, is expected")
        self.task_id = task_id
        self.task: OGBenchTask = OGBENCH[f"ogbench/{name}"]
        super().__init__(self.task.base_id, render_mode, use_oracle_rep=not whole_goals)
        width = self.base.observation_space.shape[0]
        self.goal_entries = list(range(width) if whole_goals else self.task.goal_dims)
        self.observation_space = Dict({key: Box(-np.inf, np.inf, (size,), np.float64) for key, size in zip(
            GOAL_KEYS, (width, len(self.goal_entries), len(self.goal_entries)), strict=True)})

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(1, OGBENCH_TASKS + 1))
        task_id = (options or {}).get("task_id", self.task_id or drawn)
        obs, info = self._begin(self._drawn(), self._drawn(), {"task_id": task_id})
        self.goal = np.asarray(info["goal"])
        return self._seen(obs), {"success": False, "task_id": task_id}

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(GOAL_KEYS, (obs, obs[self.goal_entries], self.goal.copy()), strict=True))


class RewardTask(OGBenchEnv):
    """One of OGBench's tasks with a fixed goal and rewards: minus the number of parts that are not at their goal.

    As in OGBench's single-task environments, the reward, `info["success"]` and the termination of a step are those of
    the state before it. Episodes are functions of the seed.
    """

    def __init__(self, base_id: str, render_mode: str | None = None):
        super().__init__(base_id, render_mode)
        self.observation_space = copy.deepcopy(self.base.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        drawn = self._drawn()
        obs, _ = self._begin(drawn, drawn)
        return obs, {"success": False, "task_id": self.base.cur_task_id}


class MazeGoal(InMaze, GoalTask):
    """A goal-conditioned environment in a maze."""

    def _goal_xy(self) -> np.ndarray:
        return self.goal[[self.goal_entries.index(entry) for entry in self.task.goal_dims]]


class MazeSingle(InMaze, RewardTask):
    """A task with a fixed goal in a maze."""


def make_base(env_id: str, **kwargs: Any) -> Any:
    """Returns OGBench's own environment without wrappers. Raises ImportError in one line if ogbench is not installed.

    OGBench's arms make a new action space whenever it is read, and draw from it in a reset. It is replaced by one that
    can be seeded.
    """
    load_gymnasium()  # it decides how mujoco renders
    try:
        importlib.import_module("ogbench")  # it registers OGBench's environments
    except ImportError as error:
        raise ImportError(f"OGBench/{env_id} needs {error.name}: pip install 'gentraj[ogbench]'") from error
    spec = gymnasium.spec(env_id)
    own: Any = load_env_creator(str(spec.entry_point))
    if not isinstance(own, type):  # a function that makes a maze
        maze = own(**spec.kwargs | kwargs)
        Path(maze.fullpath).unlink(missing_ok=True)  # its model, which is loaded by now and which nobody else deletes
        return maze
    return type(own.__name__, (own,), {"action_space": Box(-1, 1, (5,), np.float32)})(**spec.kwargs | kwargs)


def grid_of(base: Any) -> Maze:
    """The grid of one of OGBench's mazes, whose rows grow with y, unlike a `Maze`'s."""
    free = base.maze_map[::-1]
    middle = (np.array(free.shape[::-1]) - 1) / 2 * base._maze_unit - (base._offset_x, base._offset_y)
    entrances, exits = [], []
    if (known := base._teleport_info) is not None:
        entrances, exits = ([Disc(x, y, known["teleport_radius"]) for x, y in known[f"teleport_{way}_xys"]]
                            for way in ("in", "out"))
    return Maze(free.tolist(), base._maze_unit, tuple(middle), entrances, exits)


def settled(base: Any) -> np.ndarray:
    """Clears all solver state but positions and velocities, and returns the observation."""
    import mujoco

    model, data = base.model, base.data
    state = data.qpos, data.qvel, data.mocap_pos, data.mocap_quat
    kept = [array.copy() for array in state]
    mujoco.mj_resetData(model, data)  # pyright: ignore[reportAttributeAccessIssue]
    for array, values in zip(state, kept, strict=True):
        array[:] = values
    mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
    return base.compute_observation()
