"""Renders frames without a screen, or says in one line why that is not possible."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import numpy as np

from ..registration import load_gymnasium

PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"


class CannotRender(RuntimeError):
    """No picture of an environment can be drawn; the message says why in one line."""


@functools.cache
def rendering_problem() -> str | None:
    """Returns why MuJoCo can draw no frame, or None. A child process tries, because a bad driver may abort."""
    load_gymnasium()
    backend = os.environ.get("MUJOCO_GL", "")
    advice = "for pictures install libegl1, libegl-mesa0 and libgl1-mesa-dri"
    try:
        subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, timeout=60)  # noqa: S603
    except (subprocess.SubprocessError, OSError):
        return f"no frame can be drawn here (MUJOCO_GL={backend}); {advice}, or set MUJOCO_GL"
    return None


def render_frame(env: Any) -> np.ndarray:
    """Returns a frame (height, width, 3), uint8, of an environment made with "rgb_array", or raises `CannotRender`."""
    if env.render_mode != "rgb_array":
        raise CannotRender(f"the environment has render_mode={env.render_mode!r}; make it with 'rgb_array'")
    if _draws_by_mujoco(env) and (problem := rendering_problem()):
        raise CannotRender(problem)
    try:
        frame = np.asarray(env.render())
    except (load_gymnasium().error.Error, ImportError) as error:  # such as pygame, which only some environments need
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotRender(f"no frame can be drawn here: {why}") from error
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise CannotRender(f"the environment renders no picture, but {frame.dtype} of shape {frame.shape}; uint8 of "
                           "shape (height, width, 3) is expected of rgb_array")
    return frame


def _draws_by_mujoco(env: Any, deep: bool = True) -> bool:
    """Whether an environment, or one directly in it, holds anything of MuJoCo. Others need no driver to draw frames."""
    parts, kind = vars(env.unwrapped).values(), load_gymnasium().Env
    return any("mujoco" in type(part).__module__ or (deep and isinstance(part, kind) and _draws_by_mujoco(part, False))
               for part in parts)
