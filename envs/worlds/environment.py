"""A world model as a Gymnasium environment, or as a vector environment that one call of the network steps.

Observations have the format of the real environment, so that an agent trained in the world model can act outside: a
dict of observation, achieved_goal and desired_goal if there are goals, else a vector. `import gentraj.envs` registers
`gentraj/WorldModel-v0`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gentraj.worlds.model import WorldModel

from .imagined import GoalReward, ImaginedConfig, ImaginedEpisodes, goal_reward

Render = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observation, goal) -> frame (height, width, 3), uint8
Observation = np.ndarray | dict[str, np.ndarray]  # (B, ...) of a vector, or of each entry of a dict
METADATA = {"render_modes": ["rgb_array"], "render_fps": 20}


@dataclass(frozen=True)
class ObservationFormat:
    """How the real environment gives observations and rewards, of goals if the data have any, and how it is drawn."""

    goal_dims: Sequence[int] = ()
    """The entries of an observation that its goal is about (`Episodes.goal_dims`)."""
    obs_keys: Sequence[str] = ()
    """The parts of a dict observation that the data joined (`Episodes.obs_keys`)."""
    compute_reward: GoalReward | None = None
    """Gives the rewards, as in Gymnasium's goal environments; with None they are the world model's."""
    renderer: Render | None = None
    """Draws an observation and a goal; None where the data do not name the environment they come from."""

    @property
    def joined(self) -> int:
        """The number of first entries of the data's observations that are the achieved goal, put before what the real
        environment observes."""
        return len(self.goal_dims) if "achieved_goal" in self.obs_keys[:1] else 0

    def space(self, world: WorldModel) -> Space[Any]:
        """The observation space. Raises ValueError for goals of another width than the world model's."""
        def box(width: int) -> Box:
            return Box(-np.inf, np.inf, (width,), np.float32)

        goal_dim = world.facts.goal_dim
        if not goal_dim:
            return box(world.spec.obs_dim)
        if len(self.goal_dims) != goal_dim:
            raise ValueError(f"goal_dims {tuple(self.goal_dims)} name {len(self.goal_dims)} entries; the world model "
                             f"has goals of {goal_dim}")
        return Dict({"observation": box(world.spec.obs_dim - self.joined), "achieved_goal": box(goal_dim),
                     "desired_goal": box(goal_dim)})

    def observation(self, episodes: ImaginedEpisodes) -> Observation:
        """The present observations (B, ...), as new arrays."""
        if not episodes.goal_BG.shape[1]:
            return episodes.obs_BO.copy()
        return {"observation": episodes.obs_BO[:, self.joined :].copy(),
                "achieved_goal": episodes.obs_BO[:, list(self.goal_dims)], "desired_goal": episodes.goal_BG.copy()}


FLAT = ObservationFormat()  # vectors without goals


class WorldModelVectorEnv(VectorEnv):
    """`num_envs` synthetic episodes. The step after the end of an episode resets it and ignores the action.

    `info["uncertainty"]` is the error that is expected of each step (`gentraj.worlds.model.Imagined`), and
    `info["truncated_by"]` the reason why an episode was truncated, or terminated because the model is not trusted.
    """

    metadata: dict[str, Any] = METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, world: WorldModel, action_space: Box, num_envs: int = 1, config: ImaginedConfig | None = None, *,
                 obs_format: ObservationFormat = FLAT, render_mode: str | None = None):
        if render_mode not in (None, *METADATA["render_modes"]):
            raise ValueError(f"render_mode is '{render_mode}'; give rgb_array or None")
        self.num_envs = num_envs
        self.obs_format = obs_format
        self.render_mode = render_mode
        self.episodes = ImaginedEpisodes(world, num_envs, config or ImaginedConfig(),
                                         goal_reward(obs_format.compute_reward, obs_format.goal_dims))
        if obs_format.compute_reward is not None:  # libraries tell goal environments by this attribute
            self.compute_reward = obs_format.compute_reward
        self.single_observation_space = obs_format.space(world)
        self.single_action_space = action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.ended_B = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | Sequence[int | None] | None = None,  # type: ignore[override]
              options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Resets the environments of `options["reset_mask"]`, or all; environment i gets `seed` + i, or `seed[i]`.

        Raises ValueError for another number of seeds or entries of the mask than there are environments.
        """
        mask_B = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)), bool)
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs or mask_B.shape != (self.num_envs,):
            raise ValueError(f"{len(seeds)} seeds and a reset_mask of shape {mask_B.shape} were given for "
                             f"{self.num_envs} environments; give one seed and one entry for each")
        for i, each in enumerate(seeds):
            if each is not None and mask_B[i]:
                self.episodes.rngs[i] = np.random.default_rng(each)
        self.episodes.reset(mask_B)
        self.ended_B = self.ended_B & ~mask_B
        return self.obs_format.observation(self.episodes), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments. Raises ValueError for actions of another shape or that are not finite."""
        reset_B = self.ended_B
        happened = self.episodes.step(np.asarray(actions), ~reset_B)
        if reset_B.any():
            self.episodes.reset(reset_B)
        self.ended_B = happened.terminated | happened.truncated
        info = {"uncertainty": happened.uncertainty, "_uncertainty": ~reset_B, "truncated_by": happened.why,
                "_truncated_by": happened.why != ""}
        return (self.obs_format.observation(self.episodes), happened.reward.astype(np.float64), happened.terminated,
                happened.truncated, info)

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """Returns a frame (height, width, 3) of each environment. Raises RuntimeError if none can be drawn."""
        if self.render_mode is None:
            return None
        if self.obs_format.renderer is None:
            raise RuntimeError("this world model cannot be rendered: its data do not name the environment they come "
                               "from")
        return tuple(map(self.obs_format.renderer, self.episodes.obs_BO, self.episodes.goal_BG))

    def close_extras(self, **_: object) -> None:
        """Closes a renderer that holds a simulator; a plain function has no `close`."""
        getattr(self.obs_format.renderer, "close", lambda: None)()


class WorldModelEnv(gymnasium.Env):
    """One synthetic episode at a time, of a `WorldModelVectorEnv` of one environment, and with its `info`."""

    metadata: ClassVar[dict[str, Any]] = METADATA

    def __init__(self, envs: WorldModelVectorEnv):
        self.envs = envs
        self.render_mode = envs.render_mode
        self.episodes = envs.episodes
        if envs.obs_format.compute_reward is not None:
            self.compute_reward = envs.obs_format.compute_reward
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space

    def reset(self, *, seed: int | None = None,
              options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode at a start of the data, which `seed` determines."""
        super().reset(seed=seed)
        self.episodes.rngs[0] = self.np_random
        obs, info = self.envs.reset()
        return _first(obs), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Steps the episode. Raises ValueError for an action of another shape or that is not finite."""
        obs, reward_B, terminated_B, truncated_B, about = self.envs.step(np.asarray(action)[None])
        info = {"uncertainty": float(about["uncertainty"][0])}
        if about["truncated_by"][0]:
            info["truncated_by"] = about["truncated_by"][0]
        return _first(obs), float(reward_B[0]), bool(terminated_B[0]), bool(truncated_B[0]), info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Returns a frame (height, width, 3). Raises RuntimeError if none can be drawn."""
        frames = self.envs.render()
        if frames is None:
            return None
        return frames[0]

    def close(self) -> None:
        """Closes the environment."""
        self.envs.close()


def _first(obs: Observation) -> Observation:
    """The observation of the first environment."""
    if isinstance(obs, dict):
        return {key: value[0] for key, value in obs.items()}
    return obs[0]
