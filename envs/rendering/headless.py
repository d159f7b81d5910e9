"""Imports Gymnasium and its robotics environments headless, and renders frames."""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import importlib
import io
import logging
import os
import subprocess
import sys
import traceback
from types import ModuleType
from typing import Any

import numpy as np

from ..tasks.registry import MANIPULATION

IMPORTS = "GENTRAJ_IMPORT"  # environment variable with the modules of `gentraj --import`, separated by commas
PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"


class CannotRender(RuntimeError):
    """No picture of an environment can be drawn; the message says why in one line."""


@functools.cache
def load_gymnasium() -> ModuleType:
    """Returns the `gymnasium` module with gentraj's, the robotics and the user's environments registered.

    MuJoCo is set to render without a screen, if the machine can, and not to write log files. Raises ImportError, in one
    line, if a package is missing.
    """
    if sys.platform == "linux":  # set before mujoco is imported, as without EGL it may abort
        os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")
    try:
        import gymnasium
        import mujoco
        with contextlib.redirect_stderr(io.StringIO()):  # it prints a notice about other environments
            import gymnasium_robotics
    except ImportError as error:
        raise ImportError(f"environments need {error.name}: pip install gymnasium gymnasium-robotics mujoco") from error
    gymnasium.register_envs(gymnasium_robotics)
    for name, task in MANIPULATION.items():
        gymnasium.register(task.env_id, "envs.tasks.manipulation:Manipulation",
                           max_episode_steps=task.max_episode_steps, kwargs={"name": name.removeprefix("ogbench/")})
    warn = mujoco.set_mju_user_warning  # pyright: ignore[reportAttributeAccessIssue]
    warn(logging.getLogger("mujoco").info)  # else it writes MUJOCO_LOG.TXT into the working directory
    import_named()
    return gymnasium


def import_named() -> None:
    """Imports the modules named by `gentraj --import`, which register environments.

    Only the user can name modules; data never can. They may also lie in the working directory. Raises ImportError, in
    one line, for whatever goes wrong in a module.
    """
    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            is_absent = isinstance(error, ModuleNotFoundError) and str(error.name) in (name, name.partition(".")[0])
            why = (f"no module of that name is in {os.getcwd()} or installed" if is_absent else
                   f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
            raise ImportError(f"--import {name}: {why}") from error


@functools.cache
def rendering_problem() -> str | None:
    """Returns why no frame can be drawn, or None. A child process tries, because a bad driver may abort."""
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
    if problem := rendering_problem():
        raise CannotRender(problem)
    try:
        frame = np.asarray(env.render())
    except (load_gymnasium().error.Error, ImportError) as error:  # such as pygame, which only some environments need
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotRender(f"no frame can be drawn here: {why}") from error
    if frame.ndim != 3:
        raise CannotRender(f"the environment renders no picture, but {frame.dtype} of shape {frame.shape}; (height, "
                           "width, 3) is expected of rgb_array")
    return frame
