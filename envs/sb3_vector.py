"""Lets stable-baselines3, which has a vector interface of its own, train in Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise ImportError(f"gentraj.envs.sb3_vector: training with stable-baselines3 needs {error.name}: "
                      "pip install 'gentraj[sb3]'") from error


class SB3Vector(VecEnv):
    """Wraps a Gymnasium vector environment as a `VecEnv` of stable-baselines3.

    As stable-baselines3 expects, an episode that has ended is reset in the same step, and its last observation is
    `info["terminal_observation"]`. The wrapped environment must take `options["reset_mask"]` and must not reset
    episodes by itself in the step that ends them, as `WorldModelVectorEnv` and Gymnasium's own vector environments;
    ValueError is raised for one that does. Wrap it in stable-baselines3's VecMonitor to log the episodes' returns.
    """

    def __init__(self, envs: VectorEnv):
        self.envs = envs
        if envs.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP:
            raise ValueError("the environment resets episodes in the step that ends them; make it with "
                             "autoreset_mode NEXT_STEP or DISABLED")
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Resets all environments, with the seeds and options that `seed` and `set_options` were last given, once."""
        seeds: Any = list(self._seeds)
        obs, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _split(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions (B, A) until `step_wait`."""
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Takes one step and returns observations (B, O), rewards (B,), ends (B,) and infos, as stable-baselines3
        expects them."""
        obs, reward_B, terminated_B, truncated_B, info = self.envs.step(self.actions)
        infos = _split(info, self.num_envs)
        done_B = terminated_B | truncated_B
        for i, each in enumerate(infos):
            each["TimeLimit.truncated"] = bool(truncated_B[i] and not terminated_B[i])
        if done_B.any():
            last = list(iterate(self.envs.observation_space, deepcopy(obs)))
            obs, info = self.envs.reset(options={"reset_mask": done_B})
            resets = _split(info, self.num_envs)
            for i in np.flatnonzero(done_B):
                infos[i]["terminal_observation"] = last[i]
                self.reset_infos[i] = resets[i]
        return obs, np.asarray(reward_B, np.float32), done_B, infos

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture (height, width, 3) of each environment."""
        return self.envs.render() or [None] * self.num_envs  # pyright: ignore[reportReturnType]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Returns the attribute of the vector environment, repeated for each index."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the environments."""
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None,
                   **method_kwargs: Any) -> list[Any]:
        """Calls the vector environment's method once and returns its result, repeated for each index."""
        return [getattr(self.envs, method_name)(*method_args, **method_kwargs)] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """False for each environment: none has a wrapper of stable-baselines3."""
        return [False for _ in self._get_indices(indices)]


def _split(info: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Splits Gymnasium's info of all environments into one per environment; "_key" masks those that have a "key"."""
    infos: list[dict[str, Any]] = [{} for _ in range(number)]
    for key, value in info.items():
        if key.startswith("_") and key[1:] in info:
            continue
        values = _split(value, number) if isinstance(value, dict) else value
        for i in np.flatnonzero(info.get(f"_{key}", np.ones(number, bool))):
            infos[i][key] = values[i]
    return infos
