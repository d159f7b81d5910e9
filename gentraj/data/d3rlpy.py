"""d3rlpy's datasets, as `MDPDataset` in memory and as the HDF5 files of `ReplayBuffer.dump`, which need no d3rlpy.

d3rlpy keeps as many observations as actions. An episode that ends for good lacks its last observation there, which
d3rlpy never looks at. An episode that is truncated has one row more than steps: its last row is only an observation,
and d3rlpy never trains on the action and the reward in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_file
from .episodes import Episodes
from .validation import DataError

VERSION = "2.1"  # of d3rlpy's files
COLUMNS = ("observations", "actions", "rewards", "terminated")
Row = tuple[np.ndarray, np.ndarray, np.ndarray, bool]
"""Observations (N, O), actions (N, A) and rewards (N, 1) of an episode, and whether it was terminated."""


def to_d3rlpy(episodes: Episodes) -> Any:
    """Converts episodes to d3rlpy's `MDPDataset`, with every number the same.

    The action and the reward of a truncated episode's last row are 0, as d3rlpy never trains on them. Raises
    ImportError where d3rlpy is not installed. It needs an older gymnasium than gentraj, so between two installations
    `save_d3rlpy` is the way.
    """
    try:
        from d3rlpy.constants import ActionSpace  # pyright: ignore[reportMissingImports]
        from d3rlpy.dataset import MDPDataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("to_d3rlpy needs the package d3rlpy, which cannot be installed beside gentraj's gymnasium; "
                          "write a file with save_d3rlpy, and load it where d3rlpy is") from error
    rows = list(_rows(episodes))
    ends = np.concatenate([np.arange(len(act)) == len(act) - 1 for _, act, _, _ in rows])
    terminal = np.concatenate([np.full(len(act), done) for _, act, _, done in rows]) & ends
    columns = [np.concatenate([row[i] for row in rows]) for i in range(3)]
    return MDPDataset(*columns, terminal.astype(np.float32), (ends & ~terminal).astype(np.float32),
                      action_space=ActionSpace.CONTINUOUS, action_size=episodes.act_dim)


def from_d3rlpy(dataset: Any, name: str = "d3rlpy") -> Episodes:
    """Converts an `MDPDataset` or another replay buffer of d3rlpy to episodes, with every number the same.

    An observation that d3rlpy does not keep, the last of an episode that ended for good, is the one before it, and a
    warning counts these. Raises `DataError` for discrete actions, images and an episode without a step.
    """
    rows = [(np.asarray(e.observations), np.asarray(e.actions), np.asarray(e.rewards), bool(e.terminated))
            for e in dataset.episodes]
    return Episodes(**_fields(rows, name))


def save_d3rlpy(episodes: Episodes, path: str | Path) -> Path:
    """Writes a file that d3rlpy's `ReplayBuffer.load` reads, completely or not at all, and returns its path.

    d3rlpy need not be installed; the file holds what `to_d3rlpy` gives. Raises `DataError` for a name without .h5.
    """
    import h5py

    if (path := Path(path)).suffix != ".h5":
        raise DataError(f"{path}: give a name that ends in .h5")
    with BytesIO() as file, h5py.File(file, "w") as h5:
        h5["columns"], h5["num_episodes"] = list(COLUMNS), len(episodes)
        for i, row in enumerate(_rows(episodes)):
            for key, value in zip(COLUMNS, row, strict=True):
                h5[f"{key}_{i}"] = value
        h5["version"] = VERSION
        h5.flush()
        return write_file(path, file.getvalue())


def is_d3rlpy(file: Any) -> bool:
    """Whether an open HDF5 file has the layout of `ReplayBuffer.dump`."""
    return "num_episodes" in file and "columns" in file


def read_d3rlpy(file: Any, name: str) -> dict[str, Any]:
    """Reads the fields of `Episodes` from an open file of `ReplayBuffer.dump`."""
    number = int(file["num_episodes"][()])
    if number < 1 or any(f"{key}_{i}" not in file for i in range(number) for key in COLUMNS):
        raise DataError(f"{name}: has d3rlpy's layout, but not {', '.join(COLUMNS)} for each of its {number} episodes; "
                        f"format {VERSION} is expected, and observations that are no tuples")
    rows = [tuple(file[f"{key}_{i}"][()] for key in COLUMNS) for i in range(number)]
    return _fields([(obs, act, reward, bool(done)) for obs, act, reward, done in rows], name)


def _rows(episodes: Episodes) -> Iterator[Row]:
    for e in episodes:
        done = bool(e.terminated[-1])
        more = 0 if done else 1
        act, reward = np.pad(e.act, ((0, more), (0, 0))), np.pad(e.reward, (0, more))
        yield e.obs[: len(act)], act, reward[:, None], done


def _fields(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """The fields of `Episodes`, not yet validated."""
    for i, (obs, act, reward, _) in enumerate(rows):
        if act.dtype.kind != "f":
            raise DataError(f"{name}: episode {i}: actions have dtype {act.dtype}; discrete actions are not supported, "
                            "as models and policies act by vectors of real numbers")
        if obs.ndim != 2 or act.ndim != 2 or not len(obs) == len(act) == len(reward) == reward.size:
            raise DataError(f"{name}: episode {i}: observations {obs.shape}, actions {act.shape} and rewards "
                            f"{reward.shape}; (N, O), (N, A) and (N, 1) are expected, as images are not supported")
    steps = [len(act) - (not done) for _, act, _, done in rows]
    if short := steps.count(0):
        raise DataError(f"{name}: {short} truncated episodes of a single row have no step; leave them out")
    if lost := sum(done for *_, done in rows):
        warnings.warn(f"{name}: d3rlpy keeps no last observation of an episode that ended for good; in {lost} episodes "
                      "the one before it is repeated", stacklevel=3)
    ends = np.cumsum(steps) - 1
    terminated, truncated = np.zeros(sum(steps), bool), np.zeros(sum(steps), bool)
    terminated[ends], truncated[ends] = [done for *_, done in rows], [not done for *_, done in rows]

    def flat(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([*arrays])

    return {"obs": flat(np.concatenate([obs, obs[-1:]]) if done else obs for obs, _, _, done in rows),
            "act": flat(row[1][:T] for row, T in zip(rows, steps, strict=True)),
            "reward": flat(row[2].reshape(-1)[:T] for row, T in zip(rows, steps, strict=True)),
            "terminated": terminated, "truncated": truncated, "lengths": np.array(steps), "name": name}
