"""Generative models of trajectories for control.

    run = gentraj.train(gentraj.PRESETS["pointmaze-umaze"], "runs/umaze")
    run = gentraj.load("runs/umaze")
    x_BNHD = run.model.sample(gentraj.Condition.unknown(run.model.spec), num_samples=16)
"""

import os
from typing import TYPE_CHECKING, Any

from . import siblings

# Read when the first matrices are multiplied: a product then rounds the same on any number of threads, at no cost that
# was measured. Without it some CPUs part a sum among the threads where there are few rows, and not where many are.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

siblings.install()

if TYPE_CHECKING:
    from .data import Episodes, Windows, load_episodes
    from .runs import load, train
    from .runs.hub import from_pretrained, save_pretrained
    from .runs.presets import PRESETS
    from .trajectory import Condition, TrajectorySpec

__all__ = ["PRESETS", "Condition", "Episodes", "TrajectorySpec", "Windows", "from_pretrained", "load", "load_episodes",
           "save_pretrained", "train"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: a model needs no environment, and `--help` no torch."""
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
