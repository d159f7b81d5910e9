"""robomimic's HDF5 files of states (Mandlekar et al. 2021, arXiv 2108.03298): a group for each demonstration.

`data/demo_N` holds `obs/KEY` (T, width), `actions` (T, A), `rewards` and `dones` (T,), and mostly `next_obs/KEY`, whose
last row is the episode's last observation. Without it, the last action, reward and flag of a demonstration are dropped.
An episode ends for good where the last of its `dones` is 1, and is truncated where it is not.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from .episodes import DataError, Fields, as_flags, as_numbers

ARM = ("eef_pos", "eef_quat", "gripper_qpos")
STATES = (*(f"robot{i}_{part}" for i in range(2) for part in ARM), "object")
"""The observations that policies of states are trained on, where a file has them (its paper's low-dimensional ones)."""
SHOWN = 60  # characters of the keys of a file in a message


def is_robomimic(file: Any) -> bool:
    """Whether an open HDF5 file has demonstrations."""
    return "data" in file and hasattr(file["data"], "keys") and any(key.startswith("demo_") for key in file["data"])


def read_robomimic(file: Any, name: str) -> Fields:
    """Reads the fields of `Episodes`, not yet validated, from an open file.

    Observations are those of `STATES`, joined, or else all vectors of the first demonstration in the order of their
    names. Raises `DataError`, naming the demonstration, for one that lacks an array, whose arrays have other lengths or
    that has no step, and for images alone.
    """
    demos = sorted((key for key in file["data"] if re.fullmatch(r"demo_\d+", key)), key=lambda key: int(key[5:]))
    keys = _keys(file["data"][demos[0]], name) if demos else ()
    fields: dict[str, list[np.ndarray]] = {"obs": [], "act": [], "reward": [], "terminated": [], "truncated": []}
    lost = 0
    for demo in demos:
        group, where = file["data"][demo], f"{name}: {demo}"
        obs, following = _joined(group, "obs", keys, where), _joined(group, "next_obs", keys, where)
        act = _array(group, "actions", where)
        reward, done = _array(group, "rewards", where).reshape(-1), _array(group, "dones", where).reshape(-1)
        if obs is None or not len(obs) == len(act) == reward.size == done.size:
            raise DataError(f"{where}: {0 if obs is None else len(obs)} observations, {len(act)} actions, "
                            f"{reward.size} rewards and {done.size} dones; as many of each are expected")
        steps = len(act) if following is not None else len(act) - 1
        if steps < 1:
            raise DataError(f"{where}: has no step with an observation after it; leave this demonstration out")
        lost += following is None
        last = np.arange(steps) == steps - 1
        ended = bool(as_flags(done, where, "dones")[steps - 1])
        fields["obs"].append(obs if following is None else np.concatenate([obs, following[-1:]]))
        fields["act"].append(act[:steps])
        fields["reward"].append(reward[:steps])
        fields["terminated"].append(last & ended)
        fields["truncated"].append(last & (not ended))
    if lost:
        warnings.warn(f"{name}: {lost} demonstrations have no next_obs, so their last step is dropped", stacklevel=3)
    lengths = [len(act) for act in fields["act"]]
    joined = {key: np.concatenate(arrays) for key, arrays in fields.items()}
    return {**joined, "lengths": np.array(lengths), "obs_keys": keys, "name": name}


def _keys(demo: Any, name: str) -> tuple[str, ...]:
    """The observations that are joined."""
    found = {key: demo["obs"][key].ndim for key in demo["obs"]} if "obs" in demo else {}
    vectors = [key for key, dims in sorted(found.items()) if dims == 2]
    if not vectors:
        listed = ", ".join(found)[:SHOWN] or "none"
        raise DataError(f"{name}: no observation of the first demonstration is a vector ({listed}); states are "
                        "expected, as robomimic's dataset_states_to_obs.py extracts them")
    return tuple(key for key in STATES if key in vectors) if "object" in vectors else tuple(vectors)


def _joined(demo: Any, part: str, keys: tuple[str, ...], where: str) -> np.ndarray | None:
    """(T, O) these observations, or None if the demonstration has no such part."""
    if part not in demo:
        return None
    return np.concatenate([_array(demo[part], key, where) for key in keys], 1)


def _array(group: Any, key: str, where: str) -> np.ndarray:
    if key not in group:
        raise DataError(f"{where}: has no {key}; observations, actions, rewards and dones are expected of robomimic's "
                        "low-dimensional data")
    return as_numbers(np.asarray(group[key]), where, key)
