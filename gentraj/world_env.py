"""The environment of a world model's run: `gymnasium.make("gentraj/WorldModel-v0", run=DIR)` after `import envs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from envs.imagined import ImaginedConfig
from envs.making import environment_factory
from envs.portrait import Portrait
from envs.world_model import GoalReward, WorldModelEnv, WorldModelVectorEnv

from .runs import Run, load
from .world_model import WorldModel


def make(run: Run | Path | str, *, render_mode: str | None = None, own_rewards: bool = False,
         **settings: Any) -> WorldModelEnv:
    """One environment. `settings` are those of `envs.imagined.ImaginedConfig`; `gymnasium.make` keeps one of them,
    max_episode_steps, for a wrapper of its own.

    Rewards are the world model's, or with `own_rewards` those that the environment of its data gives for being where it
    imagines (Gymnasium's `compute_reward`, which hindsight replay asks for too). Raises `NothingSaved` for a folder
    without a run, ValueError for a run that is no world model, and where there is no `compute_reward`.
    """
    world, space, config, about = _prepare(run, own_rewards, settings)
    return WorldModelEnv(world, space, config, render_mode=render_mode, **about)


def make_vec(run: Run | Path | str, num_envs: int = 1, *, render_mode: str | None = None, own_rewards: bool = False,
             **settings: Any) -> WorldModelVectorEnv:
    """`num_envs` environments that are stepped by one call of the network. As `make`."""
    world, space, config, about = _prepare(run, own_rewards, settings)
    return WorldModelVectorEnv(world, space, num_envs, config, render_mode=render_mode, **about)


def action_space(run: Run) -> Box:
    """That of the run's environment; where its data name none, as far as their actions go."""
    if run.data.env is not None:
        return run.action_space()
    act = run.world_model.facts.act
    low_A, high_A = (act.unnormalize(act.shift_D.new_full(act.shift_D.shape, end)).cpu().numpy() for end in (-1, 1))
    return Box(low_A.astype(np.float32), high_A.astype(np.float32))


def _prepare(run: Run | Path | str, own_rewards: bool,
             settings: dict[str, Any]) -> tuple[WorldModel, Box, ImaginedConfig, dict[str, Any]]:
    """The model, its actions, how it is used, and what is known of its data's environment."""
    trained = run if isinstance(run, Run) else load(Path(run))
    about: dict[str, Any] = {"goal_dims": trained.data.goal_dims}
    if trained.data.env is not None:
        settings = {"max_episode_steps": environment_factory(trained.data.env).max_episode_steps} | settings
        about["draw"] = Portrait(trained.data.env)
    if own_rewards:
        about["compute_reward"] = _rewards(trained)
    return trained.world_model, action_space(trained), ImaginedConfig(**settings), about


def _rewards(run: Run) -> GoalReward:
    env: Any = environment_factory(run.data.env)().unwrapped if run.data.env and run.data.goal_dims else None
    if not hasattr(env, "compute_reward"):
        raise ValueError(f"{run.said}, and the environment of its data has no compute_reward of goals; leave "
                         "own_rewards out")
    return env.compute_reward
