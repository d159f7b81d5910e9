"""Vectorised environments with flat float32 observations, in which every number is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, SyncVectorEnv

SLACK = 1e-3  # how far outside its own bounds an observation may be: environments round


class EnvironmentFault(RuntimeError):
    """An environment or an action is faulty; the message says in one line which environment, step and value."""


class VectorEnvironment:
    """`batch` environments that are stepped together. A finished one must be reset before the next step.

    The entries `obs_keys` of a dict observation ("observation" by default) are concatenated; its "desired_goal" is kept
    apart. After each reset and step `obs_BO` (B, O) and `goal_BG` (B, G), or None without goals, are new float32
    arrays. Raises ValueError for observation and action spaces other than 1-D Boxes and dicts of 1-D Boxes.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env], batch: int, obs_keys: Sequence[str] = ()):
        self.vector = SyncVectorEnv([make_env] * batch, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        space, spec = self.vector.single_observation_space, self.vector.envs[0].spec
        self.env_id = spec.id if spec else type(self.vector.envs[0].unwrapped).__name__
        self.spec_json = replace(spec, additional_wrappers=()).to_json() if spec else None
        self.has_goal = self.tells_success = isinstance(space, Dict) and "desired_goal" in space.spaces
        self.obs_keys = tuple(obs_keys) or (("observation",) if isinstance(space, Dict) else ())
        self.boxes = self._boxes(space)
        self.action_space = self._action_box(self.vector.single_action_space)
        self.low_O = np.concatenate([box.low for box in self.boxes]) - SLACK
        self.high_O = np.concatenate([box.high for box in self.boxes]) + SLACK
        self.elapsed_B = np.zeros(batch, int)
        self.obs_BO = np.zeros((batch, self.obs_dim), np.float32)
        self.goal_BG: np.ndarray | None = None

    @property
    def obs_dim(self) -> int:
        return len(self.low_O)

    @property
    def act_dim(self) -> int:
        return len(self.action_space.low)

    @property
    def goal_dim(self) -> int:
        space: Any = self.vector.single_observation_space
        return space["desired_goal"].shape[0] if self.has_goal else 0

    def reset(self, mask_B: np.ndarray, seeds: Sequence[int]) -> None:
        """Resets the masked environments with their seeds; `seeds` holds one for each environment."""
        self.seeds: list[int | None] = list(seeds)
        self.elapsed_B[mask_B] = 0
        obs, _ = self._call(lambda: self.vector.reset(seed=self.seeds, options={"reset_mask": mask_B}))
        self._observe(obs)

    def step(self, act_BA: np.ndarray) -> dict[str, np.ndarray]:
        """Returns reward, terminated, truncated and success, (B,) each.

        Raises ValueError for actions of another shape, and `EnvironmentFault` for a faulty action or environment.
        Success is the environment's own `info["success"]` or `info["is_success"]`, or, without these, a positive reward
        if there are goals. Without any of them `tells_success` stays false.
        """
        if act_BA.shape != (shape := (len(self.obs_BO), self.act_dim)):
            raise ValueError(f"the agent's actions have shape {act_BA.shape}; {self.env_id} needs {shape}")
        self._refuse(~np.isfinite(act_BA).all(1), "the agent's action", act_BA, "finite numbers are expected")
        outside_B = ((act_BA < self.action_space.low) | (act_BA > self.action_space.high)).any(1)
        self._refuse(outside_B, "the agent's action", act_BA, f"outside {self.action_space}; clip it in the agent")
        self.elapsed_B += 1
        obs, reward, terminated, truncated, info = self._call(lambda: self.vector.step(act_BA))
        self._refuse(~np.isfinite(reward), "reward", reward, "a finite number is expected")
        self._observe(obs)
        reported = next((np.asarray(info[key], bool) for key in ("success", "is_success") if key in info), None)
        self.tells_success |= reported is not None
        success = (reward > 0) & self.has_goal if reported is None else reported
        return {"reward": reward, "terminated": terminated, "truncated": truncated, "success": success}

    def close(self) -> None:
        self.vector.close()

    def _boxes(self, space: Any) -> list[Box]:
        parts = [space.spaces.get(key) for key in self.obs_keys] if isinstance(space, Dict) else [space]
        boxes = [part for part in parts if isinstance(part, Box) and len(part.shape) == 1]
        if len(boxes) < len(parts):
            raise ValueError(f"{self.env_id}: observation space {space} is not supported; flatten it to a 1-D Box "
                             f"(gymnasium.wrappers.FlattenObservation) or name 1-D parts of the dict in obs_keys")
        return boxes

    def _action_box(self, space: Any) -> Box:
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ValueError(f"{self.env_id}: action space {space} is not supported; only a 1-D Box is")
        return space

    def _call(self, function: Callable[[], Any]) -> Any:
        """Turns whatever an environment raises into an `EnvironmentFault` that names environment and step."""
        try:
            return function()
        except Exception as error:
            steps = " or ".join(map(str, np.unique(self.elapsed_B)))
            raise EnvironmentFault(f"{self.env_id}, step {steps}: {type(error).__name__}: {error}") from error

    def _observe(self, obs: Any) -> None:
        parts = [obs[key] for key in self.obs_keys] if self.obs_keys else [obs]
        self.obs_BO = np.concatenate(parts, 1, dtype=np.float32)
        self._refuse(~np.isfinite(self.obs_BO).all(1), "observation", self.obs_BO, "finite numbers are expected")
        outside_B = ((self.obs_BO < self.low_O) | (self.obs_BO > self.high_O)).any(1)
        self._refuse(outside_B, "observation", self.obs_BO, "outside the environment's own observation space")
        if self.has_goal:
            self.goal_BG = np.array(obs["desired_goal"], np.float32)
            self._refuse(~np.isfinite(self.goal_BG).all(1), "goal", self.goal_BG, "finite numbers are expected")

    def _refuse(self, bad_B: Any, what: str, value_B: np.ndarray, why: str) -> None:
        if bad_B.any():
            i = int(np.argmax(bad_B))
            raise EnvironmentFault(f"{self.env_id}, environment {i} (seed {self.seeds[i]}), step {self.elapsed_B[i]}: "
                                   f"{what} is {value_B[i]}; {why}")


def tells_success(make_env: Callable[[], gymnasium.Env]) -> bool:
    """Whether the environment's episodes have a success rate; to read the info, a step is played."""
    envs = VectorEnvironment(make_env, 1)
    if not envs.tells_success:
        envs.action_space.seed(0)
        envs.reset(np.ones(1, bool), [0])
        envs.step(envs.action_space.sample()[None])
    envs.close()
    return envs.tells_success
