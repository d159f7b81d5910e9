"""A world model as Gymnasium environments: many, stepped by one call of the network, or one of them.

They look as the real environment does: a dict of observation, achieved_goal and desired_goal where there are goals,
else a vector, so that what is trained inside can be run outside. `import envs` registers `gentraj/WorldModel-v0`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gentraj.worlds.model import WorldModel

from .imagined import GoalReward, ImaginedConfig, ImaginedEpisodes, StepResult, goal_reward

Render = Callable[[np.ndarray, np.ndarray], np.ndarray]  # an observation and a goal -> (height, width, 3) uint8
METADATA = {"render_modes": ["rgb_array"], "render_fps": 20}


class WorldModelVectorEnv(VectorEnv):
    """`num_envs` imagined episodes. An episode that has ended starts anew with the next step, which it sits out.

    `info` says of each step how large an error is expected ("uncertainty", `gentraj.worlds.model.Imagined`) and of each
    episode that was truncated, or ended where the model is not to be believed, why ("truncated_by").
    """

    metadata: dict[str, Any] = METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, world: WorldModel, action_space: Box, num_envs: int = 1, config: ImaginedConfig | None = None, *,
                 goal_dims: Sequence[int] = (), renderer: Render | None = None, render_mode: str | None = None,
                 compute_reward: GoalReward | None = None):
        """With `compute_reward` rewards are those of Gymnasium's goal environments, else the world model's."""
        self.num_envs, self.render_mode, self.renderer = num_envs, _render_mode(render_mode, self.metadata), renderer
        self.episodes = ImaginedEpisodes(world, num_envs, config or ImaginedConfig(),
                                         goal_reward(compute_reward, goal_dims))
        self.goal_dims = list(goal_dims)
        if compute_reward is not None:  # only goal environments have the attribute, and are told by it
            self.compute_reward = compute_reward
        self.single_observation_space, self.single_action_space = observation_space(world, goal_dims), action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.ended_B = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | Sequence[int | None] | None = None,  # type: ignore[override]
              options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Environment i has the seed `seed` + i, or the i-th one. `options["reset_mask"]` leaves the others alone."""
        mask_B = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)), bool)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        for i, given in enumerate(seeds):
            if given is not None and mask_B[i]:
                self.episodes.rngs[i] = np.random.default_rng(given)
        self.episodes.reset(mask_B)
        self.ended_B = self.ended_B & ~mask_B
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Raises ValueError for actions of another shape, or that are not finite."""
        again_B = self.ended_B
        happened = self.episodes.step(np.asarray(actions), ~again_B)
        if again_B.any():
            self.episodes.reset(again_B)
        self.ended_B = happened.terminated | happened.truncated
        info = {"uncertainty": happened.uncertainty, "_uncertainty": ~again_B, "truncated_by": happened.why,
                "_truncated_by": happened.why != ""}
        return self._observe(), happened.reward.astype(np.float64), happened.terminated, happened.truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """A frame of each. Raises RuntimeError where none can be drawn."""
        if self.render_mode is None:
            return None
        rows = zip(self.episodes.obs_BO, self.episodes.goal_BG, strict=True)
        return tuple(_frame(self.renderer, obs_O, goal_G) for obs_O, goal_G in rows)

    def close_extras(self, **_: Any) -> None:
        _close(self.renderer)

    def _observe(self) -> Any:
        return observation(self.episodes, self.goal_dims)


class WorldModelEnv(gymnasium.Env):
    """One imagined episode at a time. `info` as of `WorldModelVectorEnv`."""

    metadata: ClassVar[dict[str, Any]] = METADATA

    def __init__(self, world: WorldModel, action_space: Box, config: ImaginedConfig | None = None, *,
                 goal_dims: Sequence[int] = (), renderer: Render | None = None, render_mode: str | None = None,
                 compute_reward: GoalReward | None = None):
        self.render_mode, self.renderer = _render_mode(render_mode, self.metadata), renderer
        self.episodes = ImaginedEpisodes(world, 1, config or ImaginedConfig(), goal_reward(compute_reward, goal_dims))
        self.goal_dims = list(goal_dims)
        if compute_reward is not None:
            self.compute_reward = compute_reward
        self.observation_space, self.action_space = observation_space(world, goal_dims), action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episodes.rngs[0] = self.np_random
        self.episodes.reset(np.ones(1, bool))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Raises ValueError for an action of another shape, or that is not finite."""
        happened: StepResult = self.episodes.step(np.asarray(action)[None], np.ones(1, bool))
        why = {"truncated_by": happened.why[0]} if happened.why[0] else {}
        return (self._observe(), float(happened.reward[0]), bool(happened.terminated[0]), bool(happened.truncated[0]),
                {"uncertainty": float(happened.uncertainty[0])} | why)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Raises RuntimeError where no frame can be drawn."""
        if self.render_mode is None:
            return None
        return _frame(self.renderer, self.episodes.obs_BO[0], self.episodes.goal_BG[0])

    def close(self) -> None:
        _close(self.renderer)

    def _observe(self) -> Any:
        seen = observation(self.episodes, self.goal_dims)
        return {key: value[0] for key, value in seen.items()} if isinstance(seen, dict) else seen[0]


def observation_space(world: WorldModel, goal_dims: Sequence[int]) -> Space[Any]:
    box = lambda width: Box(-np.inf, np.inf, (width,), np.float32)  # noqa: E731
    obs, goal_dim = box(world.spec.obs_dim), world.facts.goal_dim
    if not goal_dim:
        return obs
    if len(goal_dims) != goal_dim:
        raise ValueError(f"goal_dims {tuple(goal_dims)} name {len(goal_dims)} entries; the world model has goals of "
                         f"{goal_dim}")
    return Dict({"observation": obs, "achieved_goal": box(goal_dim), "desired_goal": box(goal_dim)})


def observation(episodes: ImaginedEpisodes, goal_dims: Sequence[int]) -> Any:
    """(B, ...) as the real environment shows it, to be kept or written into."""
    if not episodes.goal_BG.shape[1]:
        return episodes.obs_BO.copy()
    return {"observation": episodes.obs_BO.copy(), "achieved_goal": episodes.obs_BO[:, list(goal_dims)],
            "desired_goal": episodes.goal_BG.copy()}


def _render_mode(mode: str | None, metadata: dict[str, Any]) -> str | None:
    if mode not in (None, *metadata["render_modes"]):
        raise ValueError(f"render_mode is '{mode}'; give rgb_array or None")
    return mode


def _close(renderer: Render | None) -> None:
    """A simulator that draws is let go; a function has nothing to close."""
    getattr(renderer, "close", lambda: None)()


def _frame(renderer: Render | None, obs_O: np.ndarray, goal_G: np.ndarray) -> np.ndarray:
    if renderer is None:
        raise RuntimeError("nothing draws this world model: its data do not say which environment they come from")
    return renderer(obs_O, goal_G)
