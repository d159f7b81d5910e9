"""Gymnasium and its robotics environments, imported so that they neither abort, nor talk, nor litter."""

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

IMPORTS = "GENTRAJ_IMPORT"  # environment variable: the user's modules, by commas, of `gentraj --import`
PROBE = "import mujoco; mujoco.GLContext(64, 64).make_current()"


class CannotRender(RuntimeError):
    """Why this machine draws no picture of an environment, in one line."""


@functools.cache
def load_gymnasium() -> ModuleType:
    """The `gymnasium` module with the robotics environments registered, rendering headless where the machine can."""
    if sys.platform == "linux":  # to be decided before mujoco is imported: undecided, or without EGL, it may abort
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
    """Imports the modules that the user, and never any data, named by `gentraj --import`: they register environments.

    They are looked for in the working directory too. Raises ImportError in one line for whatever goes wrong in one.
    """
    for name in filter(None, os.environ.get(IMPORTS, "").split(",")):
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            absent = isinstance(error, ModuleNotFoundError) and str(error.name) in (name, name.partition(".")[0])
            why = (f"there is no module of that name in {os.getcwd()}, nor installed" if absent else
                   f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
            raise ImportError(f"--import {name}: {why}") from error


@functools.cache
def rendering_problem() -> str | None:
    """None where frames can be drawn, else why not in one line. Tried in a child process: a bad driver may abort."""
    load_gymnasium()
    backend = os.environ.get("MUJOCO_GL", "")
    advice = "for pictures install libegl1, libegl-mesa0 and libgl1-mesa-dri"
    try:
        subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, timeout=60)  # noqa: S603
    except (subprocess.SubprocessError, OSError):
        return f"no frame can be drawn here (MUJOCO_GL={backend}); {advice}, or set MUJOCO_GL"
    return None


def render_frame(env: Any) -> np.ndarray:
    """(height, width, 3) uint8 of an environment made with `render_mode="rgb_array"`. Raises `CannotRender`."""
    if env.render_mode != "rgb_array":
        raise CannotRender(f"the environment has render_mode={env.render_mode!r}; make it with 'rgb_array'")
    if problem := rendering_problem():
        raise CannotRender(problem)
    try:
        frame = np.asarray(env.render())
    except (load_gymnasium().error.Error, ImportError) as error:  # such as pygame, which only some of them need
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CannotRender(f"no frame can be drawn here: {why}") from error
    if frame.ndim != 3:
        raise CannotRender(f"the environment renders no picture, but {frame.dtype} of shape {frame.shape}; (height, "
                           "width, 3) is expected of rgb_array")
    return frame
