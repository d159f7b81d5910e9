"""A world model's run as an environment.

`gymnasium.make("gentraj/WorldModel-v0", run=DIR)` makes it after `import gentraj.envs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium.spaces import Box

from gentraj.envs.making import environment_factory
from gentraj.envs.rendering import Renderer
from gentraj.envs.worlds.imagined import (
    GoalReward,
    ImaginedConfig,
    ObservationFormat,
    WorldModelEnv,
    WorldModelVectorEnv,
)

from .loading import load
from .run import Run, of_kind
from .world_run import WorldModelRun


def make(run: Run | Path | str, **settings: Any) -> WorldModelEnv:
    """One environment that a world model simulates, with the `settings` of `make_vec`."""
    return WorldModelEnv(make_vec(run, 1, **settings))


def make_vec(run: Run | Path | str, num_envs: int = 1, *, render_mode: str | None = None, own_rewards: bool = False,
             **settings: Any) -> WorldModelVectorEnv:
    """`num_envs` environments that a world model simulates, and that one call of its network steps together.

    `settings` are the fields of `gentraj.envs.worlds.imagined.ImaginedConfig`; `gymnasium.make` takes
    max_episode_steps itself, for its own wrapper. Rewards are predicted by the world model. With `own_rewards` they
    are computed by the environment that the data come from, for the states that the model predicts (Gymnasium's
    `compute_reward`, as for hindsight replay). Raises `NothingSaved` for a folder without a run, ValueError for a
    run without a world model, and for `own_rewards` without a `compute_reward`.
    """
    trained = of_kind(run if isinstance(run, Run) else load(Path(run)), WorldModelRun)
    env = trained.data.env
    if env is not None:
        settings = {"max_episode_steps": environment_factory(env).max_episode_steps} | settings
    obs_format = ObservationFormat(trained.data.goal_dims, trained.data.obs_keys,
                                   compute_reward(trained) if own_rewards else None,
                                   None if env is None else Renderer(env))
    return WorldModelVectorEnv(trained.world_model, action_space(trained), num_envs, ImaginedConfig(**settings),
                               obs_format=obs_format, render_mode=render_mode)


def action_space(run: WorldModelRun) -> Box:
    """The action space of the run's environment, or `WorldFacts.act_limits` if the data name none."""
    if run.data.env is not None:
        return run.action_space()
    low_A, high_A = run.world_model.facts.act_limits
    return Box(low_A.cpu().numpy(), high_A.cpu().numpy())


def compute_reward(run: Run) -> GoalReward:
    """The `compute_reward` of the environment that the run's data come from.

    Raises ValueError if the environment has none, if the data have no goals, and if they do not say which entries of an
    observation make one, so that nobody knows what an observation has achieved.
    """
    env: Any = environment_factory(run.data.env)().unwrapped if run.data.env and run.data.context_dim else None
    if not hasattr(env, "compute_reward"):
        raise ValueError(f"{run.description}, and the environment of its data has no compute_reward of goals; leave "
                         "own_rewards out")
    if not run.data.goal_dims:
        raise ValueError(f"{run.description}, and its data do not say which entries of an observation make a goal "
                         "(goal_dims); leave own_rewards out, or train on data with goal_dims")
    return env.compute_reward
