"""The environment of a world model's run: `gymnasium.make("gentraj/WorldModel-v0", run=DIR)` after `import envs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box

from envs.making import environment_factory
from envs.rendering.renderer import Renderer
from envs.worlds.environment import WorldModelEnv, WorldModelVectorEnv
from envs.worlds.imagined import GoalReward, ImaginedConfig

from ..worlds.model import WorldModel
from .folder import Run, load


def make(run: Run | Path | str, *, render_mode: str | None = None, own_rewards: bool = False,
         **settings: Any) -> WorldModelEnv:
    """One environment. `settings` are those of `envs.worlds.imagined.ImaginedConfig`; `gymnasium.make` keeps one of
    them, max_episode_steps, for a wrapper of its own.

    Rewards are the world model's, or with `own_rewards` those that the environment of its data gives for being where it
    imagines (Gymnasium's `compute_reward`, which hindsight replay asks for too). Raises `NothingSaved` for a folder
    without a run, ValueError for a run that is no world model, and where there is no `compute_reward`.
    """
    known = _prepare(run, own_rewards, settings)
    return WorldModelEnv(known.world, known.space, known.config, goal_dims=known.goal_dims, renderer=known.renderer,
                         render_mode=render_mode, compute_reward=known.compute_reward)


def make_vec(run: Run | Path | str, num_envs: int = 1, *, render_mode: str | None = None, own_rewards: bool = False,
             **settings: Any) -> WorldModelVectorEnv:
    """`num_envs` environments that are stepped by one call of the network. As `make`."""
    known = _prepare(run, own_rewards, settings)
    return WorldModelVectorEnv(known.world, known.space, num_envs, known.config, goal_dims=known.goal_dims,
                               renderer=known.renderer, render_mode=render_mode, compute_reward=known.compute_reward)


def action_space(run: Run) -> Box:
    """That of the run's environment; where its data name none, as far as their actions go."""
    if run.data.env is not None:
        return run.action_space()
    act = run.world_model.facts.act
    low_A, high_A = (act.unnormalize(act.shift_D.new_full(act.shift_D.shape, end)).cpu().numpy() for end in (-1, 1))
    return Box(low_A.astype(np.float32), high_A.astype(np.float32))


class _Known(NamedTuple):
    """Of a run, and of the environment of its data."""

    world: WorldModel
    space: Box
    config: ImaginedConfig
    goal_dims: tuple[int, ...]
    renderer: Renderer | None
    compute_reward: GoalReward | None


def _prepare(run: Run | Path | str, own_rewards: bool, settings: dict[str, Any]) -> _Known:
    trained = run if isinstance(run, Run) else load(Path(run))
    world, env = trained.world_model, trained.data.env
    if env is not None:
        settings = {"max_episode_steps": environment_factory(env).max_episode_steps} | settings
    return _Known(world, action_space(trained), ImaginedConfig(**settings), trained.data.goal_dims,
                  None if env is None else Renderer(env), compute_reward(trained) if own_rewards else None)


def compute_reward(run: Run) -> GoalReward:
    """That of the environment of the run's data. Raises ValueError where it has none, or the data no goals."""
    env: Any = environment_factory(run.data.env)().unwrapped if run.data.env and run.data.context_dim else None
    if not hasattr(env, "compute_reward"):
        raise ValueError(f"{run.description}, and the environment of its data has no compute_reward of goals; leave "
                         "own_rewards out")
    return env.compute_reward
