"""Checks before a training: do the data fit their environment, and can the components act together?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
from gymnasium.spaces import Box

from gentraj.envs.evaluation.stepping import BOUND_SLACK
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import UnsafeEnvironment, environment_factory, lost_wrappers, try_making

from ..data import Episodes, Windows
from ..progress import one_line, say
from .kinds import AnyRunConfig
from .settings import Component, DataFacts

DRY_RUN_WINDOWS = 16  # trust is calibrated on these windows of the data, and the decision starts from the first


def check_data(data: DataFacts, episodes: Episodes, env_id: str | None) -> None:
    """Checks that the data come from the environment `env_id`, by default the one that they name.

    Raises ValueError if observations, actions or goals have another width than the environment's, and for an id that
    could not be an environment's. Warns if actions lie outside its action space, and if the data were recorded with
    wrappers that it is made without. Says so if the environment cannot be made here, so that nothing is compared.
    """
    if env_id is not None:
        envs = check_fit(data, env_id)
    elif data.env is None or (envs := _recorded_environment(data, episodes.name)) is None:
        return
    goal = episodes.extras.get("goal")
    if goal is not None and envs.goal_dim not in (0, goal.shape[1]):
        raise ValueError(f"the data have goals of width {goal.shape[1]}, but {envs.env_id} has goals of "
                         f"{envs.goal_dim}; name the environment of the data by --env-id")
    low_A, high_A = envs.action_space.low - BOUND_SLACK, envs.action_space.high + BOUND_SLACK
    outside = ((episodes.act < low_A) | (episodes.act > high_A)).any(1)
    if outside.any():
        first = int(np.argmax(outside))
        warnings.warn(f"{episodes.name}: {100 * outside.mean():.3g} % of the actions lie outside the action space of "
                      f"{envs.env_id}, {envs.action_space}, such as {episodes.act[first]}; the agent stays inside it: "
                      "scale the actions to its units, or name the environment of the data by --env-id", stacklevel=3)


def check_fit(data: DataFacts, env: str) -> VectorEnvironment:
    """The environment, closed. Raises ValueError if its observations or actions have another width than the data's."""
    envs = VectorEnvironment(environment_factory(env), 1, data.obs_keys)
    envs.close()
    if (envs.obs_dim, envs.act_dim) != (data.obs_dim, data.act_dim):
        raise ValueError(f"the data have observations of width {data.obs_dim} and actions of {data.act_dim}, but "
                         f"{envs.env_id} has {envs.obs_dim} and {envs.act_dim}; name the environment of the data by "
                         "--env-id, and its arguments by --env-kwargs")
    return envs


def check_evaluable(data: DataFacts) -> None:
    """Raises ValueError if an agent cannot be evaluated while it is trained, as `--eval-every` asks."""
    if data.env is None:
        raise ValueError("--eval-every evaluates in an environment, and the data do not say which one they come from; "
                         "give --env-id, or leave --eval-every out")
    envs = check_fit(data, data.env)
    if data.goal_dims and not envs.has_goal:
        raise ValueError(f"--eval-every evaluates an agent that is given goals (entries {data.goal_dims} of an "
                         f"observation), and {envs.env_id} gives none; leave --eval-every out")


def _recorded_environment(data: DataFacts, name: str) -> VectorEnvironment | None:
    """The environment that the data name, which must fit them; None if it cannot be made on this machine."""
    try:
        try_making(str(data.env))
    except UnsafeEnvironment:
        raise
    except Exception as error:  # a package may be missing, for example
        say(f"{name}: the environment of these data cannot be made here, so nothing is compared with its spaces "
            f"({one_line(error)})")
        return None
    if lost := lost_wrappers(str(data.env)):
        warnings.warn(f"{name}: the data were recorded with the wrappers {', '.join(lost)}, without which their "
                      "environment is made here, so that observations or actions may have other units; register an "
                      "environment with these additional_wrappers, and name it by --env-id", stacklevel=4)
    return check_fit(data, str(data.env))


def dry_run(config: AnyRunConfig, data: DataFacts, components: Mapping[str, Component], windows: Windows) -> None:
    """Lets untrained copies of the components decide once. Raises ValueError if they cannot act together."""
    batch, ones = windows.batch(0, 0, DRY_RUN_WINDOWS), np.ones(data.act_dim, np.float32)
    copies = {name: deepcopy(component).eval() for name, component in components.items()}
    agent = config.agent(copies, batch, Box(-ones, ones), None, None)
    obs_BO = batch.x_BHD[:1, 0, : data.obs_dim]
    agent.act(obs_BO, config.dry_goal(batch, obs_BO, data.goal_dims))
