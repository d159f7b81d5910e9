"""Renders observations: the real simulator is set to the state of an observation and draws it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluation.replay import CannotReplay, simulated, states
from ..making import EnvironmentFactory, environment_factory
from .headless import CannotRender, render_frame


class Renderer:
    """`renderer(obs_O, goal_G)` returns a frame (height, width, 3), uint8, of the environment `env`.

    Raises `CannotRender` if the machine cannot draw or the observation does not determine the simulator's state.
    """

    def __init__(self, env: str):
        self.factory: EnvironmentFactory = environment_factory(env, {"render_mode": "rgb_array"})
        self.env: Any = None

    def __call__(self, obs_O: np.ndarray, goal_G: np.ndarray) -> np.ndarray:
        if self.env is None:
            self.env = self.factory()
            self.env.reset(seed=0)
        base = self.env.unwrapped
        if not hasattr(base, "model"):
            raise CannotRender(f"{self.factory.env_id} is not a MuJoCo environment, so it cannot be set to an "
                               "observation's state")
        idle_RTA = np.zeros((1, 1, base.model.nu))
        try:
            state_S = states(base, self.factory.env_id, obs_O[None].astype(float), idle_RTA)[0, 0, 1:]
        except CannotReplay as error:
            raise CannotRender(str(error)) from error
        if len(goal_G) and hasattr(base, "update_target_site_pos"):
            base.goal = np.asarray(goal_G, float)
            base.update_target_site_pos()
        simulated(base).set_state(state_S[: base.model.nq], state_S[base.model.nq :])
        return render_frame(self.env)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
