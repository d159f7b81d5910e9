"""d3rlpy's datasets, as the HDF5 files of `ReplayBuffer.dump`, which need no d3rlpy.

d3rlpy keeps as many observations as actions. An episode that ends for good lacks its last observation there, which
d3rlpy never looks at. An episode that is truncated has one row more than steps: its last row is only an observation,
and d3rlpy never trains on the action and the reward in it.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_file
from .episodes import DataError, Episodes, Fields

VERSION = "2.1"  # of d3rlpy's files
COLUMNS = ("observations", "actions", "rewards", "terminated")


def save_d3rlpy(episodes: Episodes, path: str | Path) -> Path:
    """Writes a file that d3rlpy's `ReplayBuffer.load` reads, completely or not at all, and returns its path.

    d3rlpy need not be installed. The action and the reward of a truncated episode's last row are 0. Raises `DataError`
    for a name without .h5.
    """
    import h5py

    if (path := Path(path)).suffix != ".h5":
        raise DataError(f"{path}: give a name that ends in .h5")
    with BytesIO() as file, h5py.File(file, "w") as h5:
        h5["columns"] = list(COLUMNS)
        h5["num_episodes"] = len(episodes)
        h5["version"] = VERSION
        for i, e in enumerate(episodes):
            done = bool(e.terminated[-1])
            more = 0 if done else 1
            h5[f"observations_{i}"] = e.obs[: len(e.act) + more]
            h5[f"actions_{i}"] = np.pad(e.act, ((0, more), (0, 0)))
            h5[f"rewards_{i}"] = np.pad(e.reward, (0, more))[:, None]
            h5[f"terminated_{i}"] = done
        h5.flush()
        return write_file(path, file.getvalue())


def is_d3rlpy(file: Any) -> bool:
    """Whether an open HDF5 file has the layout of `ReplayBuffer.dump`."""
    return "num_episodes" in file and "columns" in file


def read_d3rlpy(file: Any, name: str) -> Fields:
    """Reads the fields of `Episodes`, not yet validated, from an open file of `ReplayBuffer.dump`.

    An observation that d3rlpy does not keep, the last of an episode that ended for good, is the one before it, and a
    warning counts these. Raises `DataError` for discrete actions, images and an episode without a step.
    """
    fields: dict[str, list[Any]] = {"obs": [], "act": [], "reward": [], "terminated": [], "truncated": []}
    for i in range(int(file["num_episodes"][()])):
        if any(f"{key}_{i}" not in file for key in COLUMNS):
            raise DataError(f"{name}: has d3rlpy's layout, but not {', '.join(COLUMNS)} for episode {i}; format "
                            f"{VERSION} is expected, and observations that are no tuples")
        obs, act = file[f"observations_{i}"][()], file[f"actions_{i}"][()]
        reward, done = file[f"rewards_{i}"][()], bool(file[f"terminated_{i}"][()])
        if obs.ndim != 2 or act.ndim != 2 or act.dtype.kind != "f" or not len(obs) == len(act) == reward.size:
            raise DataError(f"{name}: episode {i}: observations {obs.shape}, {act.dtype} actions {act.shape} and "
                            f"rewards {reward.shape}; (N, O), (N, A) of real numbers and (N, 1) are expected, as "
                            "discrete actions and images are not supported")
        steps = len(act) if done else len(act) - 1
        last = np.arange(steps) == steps - 1
        fields["obs"].append(np.concatenate([obs, obs[-1:]]) if done else obs)
        fields["act"].append(act[:steps])
        fields["reward"].append(reward.reshape(-1)[:steps])
        fields["terminated"].append(last & done)
        fields["truncated"].append(last & (not done))
    if lost := sum(int(flags.any()) for flags in fields["terminated"]):
        warnings.warn(f"{name}: d3rlpy keeps no last observation of an episode that ended for good; in {lost} episodes "
                      "the one before it is repeated", stacklevel=3)
    lengths = np.array([len(act) for act in fields["act"]])
    if not lengths.all() or not len(lengths):
        raise DataError(f"{name}: {np.count_nonzero(lengths == 0)} of {len(lengths)} episodes are truncated with a "
                        "single row, and so have no step; leave them out")
    return {key: np.concatenate(parts) for key, parts in fields.items()} | {"lengths": lengths, "name": name}
