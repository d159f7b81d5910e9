"""Checks before a training: do the data fit their environment, and can the components act together?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from gymnasium.spaces import Box

from envs.evaluation.vector import SLACK, VectorEnvironment
from envs.making import environment_factory, recorded_factory

from ..data import Episodes, Windows
from .kinds import AnyRunConfig, Component, DataFacts

WINDOWS = 16  # of the data: what trust is calibrated by; it decides for the first


def check_data(data: DataFacts, episodes: Episodes, env_id: str | None) -> None:
    """Raises ValueError for data that are not of the environment `env_id`, by default the one that they name. Warns of
    actions that it has not."""
    if env_id is not None:
        envs = check_fit(data, env_id)
    elif data.env is None or (envs := _made(data)) is None:
        return
    low_A, high_A = envs.action_space.low - SLACK, envs.action_space.high + SLACK
    outside = ((episodes.act < low_A) | (episodes.act > high_A)).any(1)
    if outside.any():
        first = int(np.argmax(outside))
        warnings.warn(f"{episodes.name}: {100 * outside.mean():.3g} % of the actions lie outside the action space of "
                      f"{envs.env_id}, {envs.action_space}, such as {episodes.act[first]}; what acts stays inside it: "
                      "scale them to its units, or name their own environment by --env-id", stacklevel=3)


def check_fit(data: DataFacts, env: str) -> VectorEnvironment:
    """The environment, closed. Raises ValueError where it has other observations or actions than the data."""
    envs = VectorEnvironment(environment_factory(env), 1, data.obs_keys)
    envs.close()
    if (envs.obs_dim, envs.act_dim) != (data.obs_dim, data.act_dim):
        raise ValueError(f"the data have observations of width {data.obs_dim} and actions of {data.act_dim}, but "
                         f"{envs.env_id} has {envs.obs_dim} and {envs.act_dim}; name the environment of the data by "
                         "--env-id, with --env-kwargs its arguments")
    return envs


def check_evaluable(data: DataFacts) -> None:
    """Raises ValueError, before a training that is to be evaluated on its way, where that cannot be done."""
    if data.env is None:
        raise ValueError("--eval-every evaluates in an environment, and the data do not say which one they come from; "
                         "give --env-id, or leave --eval-every out")
    check_fit(data, data.env)


def _made(data: DataFacts) -> VectorEnvironment | None:
    """The environment that the data name, which must fit them; None where it cannot be made on this machine."""
    factory = recorded_factory(data.env)
    try:
        if factory is None:
            return None
        factory().close()
    except Exception:  # such as a package that it needs: its evaluation will say so
        return None
    return check_fit(data, str(data.env))


def dry_run(config: AnyRunConfig, data: DataFacts, components: Mapping[str, Component], windows: Windows) -> None:
    """Acts by copies of components that are not trained yet. Raises ValueError for settings that do not go together."""
    few, ones = windows.batch(0, 0, WINDOWS), np.ones(data.act_dim, np.float32)
    copies = {name: deepcopy(component).eval() for name, component in components.items()}
    agent = config.agent(copies, few, Box(-ones, ones), None, None)
    obs_BO = few.x_BHD[:1, 0, : data.obs_dim]
    agent.act(obs_BO, config.dry_goal(few, obs_BO, data.goal_dims))
