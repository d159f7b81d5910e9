"""Pictures show the maze, and a machine that cannot render says why in one line."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from gentraj.envs.making import environment_factory
from gentraj.envs.rendering import CannotRender, render_frame, rendering_problem


def test_a_frame_is_drawn_or_the_reason_is_one_line():
    env = environment_factory("pointmaze-umaze", {"render_mode": "rgb_array"})()
    env.reset(seed=0)
    if problem := rendering_problem():
        assert "\n" not in problem
        with pytest.raises(CannotRender, match="no frame can be drawn"):
            render_frame(env)
    else:
        frame = render_frame(env)
        assert frame.ndim == 3 and frame.dtype == np.uint8 and frame.std() > 0
    env.close()
    with pytest.raises(CannotRender, match="make it with 'rgb_array'"):
        render_frame(environment_factory("pointmaze-umaze")())


@pytest.mark.parametrize(("frame", "why"), [
    (gymnasium.error.DependencyNotInstalled("pygame is not installed\nat all"), "drawn here: pygame is not installed$"),
    (None, "renders no picture, but object of shape \\(\\)"),
    (np.zeros((3, 3, 3)), "but float64 of shape .*; uint8 of")])
def test_an_environment_that_draws_nothing_says_why(frame, why, monkeypatch):
    def render():
        if isinstance(frame, Exception):
            raise frame
        return frame

    with pytest.raises(CannotRender, match=why):
        render_frame(SimpleNamespace(render_mode="rgb_array", render=render, unwrapped=SimpleNamespace()))
