"""Renders observations: the real simulator is set to the state of an observation and draws it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluation.replay import CannotReplay, place
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
        try:
            place(self.env, self.factory.env_id, obs_O, goal_G)
        except CannotReplay as error:
            raise CannotRender(str(error)) from error
        return render_frame(self.env)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
            self.env = None
