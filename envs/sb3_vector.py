"""Gymnasium's vector environments where stable-baselines3 expects its own: what it trains in, stepped by one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(f"envs.sb3_vector: to train by stable-baselines3 needs {error.name}: "
                      "pip install 'gentraj[sb3]'") from error


class SB3Vector(VecEnv):
    """An episode that has ended starts anew in the same step, and its last observation is in its info.

    Around any vector environment that takes `options["reset_mask"]` and does not start episodes anew in the step that
    ends them: `WorldModelVectorEnv`, or Gymnasium's own. Raises ValueError for one that does. Returns of episodes are
    logged where stable-baselines3's VecMonitor is around it.
    """

    def __init__(self, envs: VectorEnv):
        self.envs = envs
        if envs.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP:
            raise ValueError("the environment starts episodes anew in the step that ends them; make it with "
                             "autoreset_mode NEXT_STEP or DISABLED")
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """With the seeds of `seed` and the options of `set_options`, the same for all, if they were given since."""
        seeds: Any = list(self._seeds)
        obs, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _split(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward_B, terminated_B, truncated_B, info = self.envs.step(self.actions)
        infos, done_B = _split(info, self.num_envs), terminated_B | truncated_B
        for i, known in enumerate(infos):
            known["TimeLimit.truncated"] = bool(truncated_B[i] and not terminated_B[i])
        if done_B.any():
            last = _rows(self.envs, obs)
            obs, info = self.envs.reset(options={"reset_mask": done_B})
            resets = _split(info, self.num_envs)
            for i in np.flatnonzero(done_B):
                infos[i]["terminal_observation"], self.reset_infos[i] = last[i], resets[i]
        return obs, np.asarray(reward_B, np.float32), done_B, infos

    def close(self) -> None:
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        images: Any = self.envs.render()
        return images or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """That of the vector environment, once for each: all are one."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Called once."""
        return [getattr(self.envs, method_name)(*method_args, **method_kwargs)] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]


def _rows(envs: VectorEnv, obs: Any) -> list[Any]:
    """Each environment's observation, a copy."""
    copied = {key: value.copy() for key, value in obs.items()} if isinstance(obs, dict) else obs.copy()
    return list(iterate(envs.observation_space, copied))


def _split(info: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What is said of all -> what is said of each; "_key" says of whom "key" is said."""
    infos: list[dict[str, Any]] = [{} for _ in range(number)]
    for key, value in info.items():
        if key.startswith("_") and key[1:] in info:
            continue
        values = _split(value, number) if isinstance(value, dict) else value
        for i in np.flatnonzero(info.get(f"_{key}", np.ones(number, bool))):
            infos[i][key] = values[i]
    return infos
