"""Generative models of trajectories for control.

    run = gentraj.train(gentraj.PRESETS["pointmaze-umaze"], "runs/umaze")
    run = gentraj.load("runs/umaze")
    x_BNHD = run.model.sample(gentraj.Condition.unknown(run.model.spec), num_samples=16)
"""

import os
from typing import TYPE_CHECKING, Any

from . import import_hook

# MKL reads this at its first matrix product. Products then round the same on any number of threads, at no measurable
# cost. Without it, some CPUs split the sums among the threads for few rows, but not for many.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import_hook.install()

if TYPE_CHECKING:
    from .data import Episodes, Windows, load_episodes
    from .runs import load, train
    from .runs.hub import from_pretrained, save_pretrained
    from .runs.presets import PRESETS
    from .trajectory import Condition, TrajectorySpec

__all__ = ["PRESETS", "Condition", "Episodes", "TrajectorySpec", "Windows", "from_pretrained", "load", "load_episodes",
           "save_pretrained", "train"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `--help` needs no torch and a model needs no environment."""
    if name in ("Condition", "TrajectorySpec"):
        from . import trajectory as room
    elif name in ("Episodes", "Windows", "load_episodes"):
        from . import data as room
    elif name == "PRESETS":
        from .runs import presets as room
    elif name in ("from_pretrained", "save_pretrained"):
        from .runs import hub as room
    elif name in ("load", "train"):
        from . import runs as room
    else:
        raise AttributeError(f"module 'gentraj' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(room, name)
