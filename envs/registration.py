"""Imports Gymnasium with all environments registered: gentraj's, the user's, and gymnasium-robotics' if installed."""

from __future__ import annotations

import contextlib
import ctypes.util
import functools
import importlib
import io
import logging
import os
import sys
import traceback
from importlib.util import find_spec
from types import ModuleType

from gentraj.process import IMPORTS

from .tasks.registry import environments


@functools.cache
def load_gymnasium() -> ModuleType:
    """Returns the `gymnasium` module with gentraj's, the robotics and the user's environments registered.

    MuJoCo is set to render without a screen, if the machine can, and not to write log files. Environments of a package
    that is not installed are unknown (`missing_packages`), or say so when they are made.
    """
    if sys.platform == "linux":  # set before mujoco is imported, as without EGL it may abort
        os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "disabled")
    import gymnasium

    if find_spec("mujoco"):
        import mujoco

        warn = mujoco.set_mju_user_warning  # pyright: ignore[reportAttributeAccessIssue]
        warn(logging.getLogger("mujoco").info)  # else it writes MUJOCO_LOG.TXT into the working directory
    if find_spec("gymnasium_robotics") and find_spec("mujoco"):
        with contextlib.redirect_stderr(io.StringIO()):  # it prints a notice about other environments
            import gymnasium_robotics
        gymnasium.register_envs(gymnasium_robotics)
    for env_id, made_by, steps, kwargs in environments():
        gymnasium.register(env_id, f"gentraj.envs.tasks.{made_by}", max_episode_steps=steps, kwargs=kwargs)
    import_named()
    return gymnasium


def missing_packages() -> list[str]:
    """Returns the names of the packages with environments that are not installed, as pip knows them."""
    packages = {"gymnasium-robotics": "gymnasium_robotics", "mujoco": "mujoco"}
    return [name for name, module in packages.items() if not find_spec(module)]


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
