"""The environment of a world model's run: `gymnasium.make("gentraj/WorldModel-v0", run=DIR)` after `import envs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from envs.imagined import ImaginedConfig
from envs.making import environment_factory
from envs.portrait import Portrait
from envs.world_model import WorldModelEnv, WorldModelVectorEnv

from .runs import Run, load


def make(run: Run | Path | str, *, render_mode: str | None = None, **settings: Any) -> WorldModelEnv:
    """One environment. `settings` are those of `envs.imagined.ImaginedConfig`; `gymnasium.make` keeps one of them,
    max_episode_steps, for a wrapper of its own.

    Raises `NothingSaved` for a folder without a run, ValueError for a run that is no world model.
    """
    trained, config = _prepare(run, settings)
    return WorldModelEnv(trained.world_model, action_space(trained), config, goal_dims=trained.data.goal_dims,
                         draw=_draw(trained), render_mode=render_mode)


def make_vec(run: Run | Path | str, num_envs: int = 1, *, render_mode: str | None = None,
             **settings: Any) -> WorldModelVectorEnv:
    """`num_envs` environments that are stepped by one call of the network. As `make`."""
    trained, config = _prepare(run, settings)
    return WorldModelVectorEnv(trained.world_model, action_space(trained), num_envs, config,
                               goal_dims=trained.data.goal_dims, draw=_draw(trained), render_mode=render_mode)


def action_space(run: Run) -> Box:
    """That of the run's environment; where its data name none, as far as their actions go."""
    if run.data.env is not None:
        return run.action_space()
    act = run.world_model.facts.act
    low_A, high_A = (act.unnormalize(act.shift_D.new_full(act.shift_D.shape, end)).cpu().numpy() for end in (-1, 1))
    return Box(low_A.astype(np.float32), high_A.astype(np.float32))


def _prepare(run: Run | Path | str, settings: dict[str, Any]) -> tuple[Run, ImaginedConfig]:
    trained = run if isinstance(run, Run) else load(Path(run))
    if trained.data.env is not None:
        settings = {"max_episode_steps": environment_factory(trained.data.env).max_episode_steps} | settings
    return trained, ImaginedConfig(**settings)


def _draw(run: Run) -> Portrait | None:
    return None if run.data.env is None else Portrait(run.data.env)
