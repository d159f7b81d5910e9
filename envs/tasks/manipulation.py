"""OGBench's tasks, goal-conditioned or single with rewards, as environments whose episodes are functions of the seed.

Making such an environment needs the package ogbench (pip install 'gentraj[ogbench]').
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box, Dict

from gentraj.randomness import seeded

from ..making import load_gymnasium
from .registry import OGBENCH, OGBENCH_TASKS, OGBenchTask

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


class Around(gymnasium.Env):
    """An environment around that of another library, `base`, which it resets and observes in its own way."""

    base: Any

    def step(self, action: np.ndarray):
        obs, reward, terminated, truncated, info = self.base.step(action)
        return self._seen(obs), float(reward), bool(terminated), bool(truncated), {"success": bool(info["success"])}

    def render(self) -> Any:
        return self.base.render()

    def close(self) -> None:
        self.base.close()

    def _seen(self, obs: Any) -> Any:
        """What is observed in the place of the base's observation."""
        return obs


class Manipulation(Around):
    """An OGBench manipulation task; each episode has one of its five starts and goals.

    The seed draws the start and the goal, unless `task_id` or options["task_id"] (1 to 5) names them. The goal is
    OGBench's oracle representation: where the objects should be, the entries `goal_dims` of the observation. When all
    objects are there, the reward is 1, `info["success"]` is true and the episode terminates. States are functions of
    the seed, unlike in OGBench's own environments, which draw a task and the goal's posture from global random numbers.
    Raises ValueError for another `task_id`.
    """

    def __init__(self, name: str, render_mode: str | None = None, task_id: int | None = None):
        if task_id is not None and task_id not in range(1, OGBENCH_TASKS + 1):
            raise ValueError(f"task_id is {task_id!r}; a number from 1 to {OGBENCH_TASKS}, or None for one that the "
                             "seed draws, is expected")
        self.task_id = task_id
        self.task: OGBenchTask = OGBENCH[f"ogbench/{name}"]
        self.render_mode, self.metadata = render_mode, {"render_modes": ["rgb_array"], "render_fps": 20}
        self.base = make_base(self.task.base_id, use_oracle_rep=True)
        self.action_space = copy.deepcopy(self.base.action_space)
        width = self.base.observation_space.shape[0]
        self.observation_space = Dict({key: Box(-np.inf, np.inf, (size,), np.float64) for key, size in zip(
            GOAL_KEYS, (width, len(self.task.goal_dims), len(self.task.goal_dims)), strict=True)})

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(1, OGBENCH_TASKS + 1))
        task_id = (options or {}).get("task_id", self.task_id or drawn)
        self.base.action_space.seed(int(self.np_random.integers(2**31)))
        _, info = self.base.reset(seed=int(self.np_random.integers(2**31)), options={"task_id": task_id})
        self.goal = np.asarray(info["goal"])
        return self._seen(settled(self.base)), {"success": False, "task_id": task_id}

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(GOAL_KEYS, (obs, obs[list(self.task.goal_dims)], self.goal.copy()), strict=True))


class SingleTask(Around):
    """One of OGBench's tasks with a fixed goal and rewards: minus the number of parts that are not at their goal.

    As in OGBench's single-task environments, the reward, `info["success"]` and the termination of a step are those of
    the state before it. States are functions of the seed.
    """

    def __init__(self, base_id: str, render_mode: str | None = None):
        self.render_mode, self.metadata = render_mode, {"render_modes": ["rgb_array"], "render_fps": 20}
        self.is_arm = "maze" not in base_id and "soccer" not in base_id
        self.base = make_base(base_id, **{} if self.is_arm else {"render_mode": render_mode})
        self.action_space, self.observation_space = map(copy.deepcopy, (
            self.base.action_space, self.base.observation_space))

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        self.base.action_space.seed(drawn)
        with seeded(drawn):  # mazes draw from numpy's global generator
            obs, _ = self.base.reset(seed=drawn)
        return settled(self.base) if self.is_arm else obs, {"success": False, "task_id": self.base.cur_task_id}


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
        return without_file(own(**spec.kwargs | kwargs))
    return type(own.__name__, (own,), {"action_space": Box(-1, 1, (5,), np.float32)})(**spec.kwargs | kwargs)


def without_file(maze: Any) -> Any:
    """Deletes the file of a maze's model, which is loaded by now and which nobody else deletes; returns the maze."""
    Path(maze.fullpath).unlink(missing_ok=True)
    return maze


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
