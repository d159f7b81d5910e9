"""OGBench's manipulation as goal-conditioned environments: goals are entries of the observation, and seeds decide all.

Needs the package ogbench (pip install 'gentraj[ogbench]'), and only once an environment is made.
"""

from __future__ import annotations

import copy
import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box, Dict

from ..rendering.headless import load_gymnasium
from .registry import MANIPULATION, ManipulationTask

GOAL_KEYS = ("observation", "achieved_goal", "desired_goal")


class Manipulation(gymnasium.Env):
    """One of OGBench's five starts and goals an episode, drawn by the seed or given as options["task_id"] (1 to 5).

    The goal is what OGBench calls the oracle representation, where the objects should be: `goal_dims` of the
    observation. The episode ends when all of them are there, `info["success"]`, and then the reward is 1. A state is a
    function of the seed alone, which OGBench's own are not: it draws a task and a posture for its goal from elsewhere.
    """

    def __init__(self, name: str, render_mode: str | None = None):
        self.task: ManipulationTask = MANIPULATION[f"ogbench/{name}"]
        self.render_mode, self.metadata = render_mode, {"render_modes": ["rgb_array"], "render_fps": 20}
        self.base = make_base(self.task, use_oracle_rep=True)
        self.action_space = copy.deepcopy(self.base.action_space)
        width = self.base.observation_space.shape[0]
        self.observation_space = Dict({key: Box(-np.inf, np.inf, (size,), np.float64) for key, size in zip(
            GOAL_KEYS, (width, len(self.task.goal_dims), len(self.task.goal_dims)), strict=True)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        task_id = (options or {}).get("task_id", int(self.np_random.integers(1, self.base.num_tasks + 1)))
        self.base.action_space.seed(int(self.np_random.integers(2**31)))
        _, info = self.base.reset(seed=int(self.np_random.integers(2**31)), options={"task_id": task_id})
        self.goal = np.asarray(info["goal"])
        return self._seen(settled(self.base)), {"success": False, "task_id": task_id}

    def step(self, action: Any):
        obs, reward, terminated, truncated, info = self.base.step(action)
        return self._seen(obs), reward, bool(terminated), truncated, {"success": bool(info["success"])}

    def render(self) -> Any:
        return self.base.render()

    def close(self) -> None:
        self.base.close()

    def _seen(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(GOAL_KEYS, (obs, obs[list(self.task.goal_dims)], self.goal.copy()), strict=True))


def make_base(task: ManipulationTask, **kwargs: Any) -> Any:
    """OGBench's own environment without wrappers. Raises ImportError in one line where it is not installed.

    Its action space, a new one at every look, is replaced by one that can be seeded: a reset draws from it.
    """
    load_gymnasium()  # which decides how mujoco renders
    try:
        importlib.import_module("ogbench.manipspace")  # registers them
    except ImportError as error:
        raise ImportError(f"{task.env_id} needs {error.name}: pip install 'gentraj[ogbench]'") from error
    spec = gymnasium.spec(task.base_id)
    own: Any = load_env_creator(str(spec.entry_point))
    return type(own.__name__, (own,), {"action_space": Box(-1, 1, (5,), np.float32)})(**spec.kwargs | kwargs)


def settled(base: Any) -> np.ndarray:
    """The observation, once what the solver remembers of earlier steps is cleared: only positions and speeds count."""
    import mujoco

    model, data = base.model, base.data
    kept = [array.copy() for array in (data.qpos, data.qvel, data.mocap_pos, data.mocap_quat)]
    mujoco.mj_resetData(model, data)  # pyright: ignore[reportAttributeAccessIssue]
    data.qpos[:], data.qvel[:], data.mocap_pos[:], data.mocap_quat[:] = kept
    mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
    return base.compute_observation()
