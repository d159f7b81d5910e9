"""robomimic's HDF5 files of states (Mandlekar et al. 2021, arXiv 2108.03298): a group for each demonstration.

`data/demo_N` holds `obs/KEY` (T, width), `actions` (T, A), `rewards` and `dones` (T,), and mostly `next_obs/KEY`, whose
last row is the episode's last observation. A demonstration ends for good where the last of its `dones` is 1, and is
truncated where it is not.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .episodes import DataError, as_flags, as_numbers

ARM = ("eef_pos", "eef_quat", "gripper_qpos")
STATES = (*(f"robot{i}_{part}" for i in range(2) for part in ARM), "object")
"""The observations that policies of states are trained on, where a file has them (its paper's low-dimensional ones)."""
SHOWN = 60  # characters of the keys of a file in a message


def is_robomimic(file: Any) -> bool:
    """Whether an open HDF5 file has demonstrations."""
    return "data" in file and hasattr(file["data"], "keys") and any(key.startswith("demo_") for key in file["data"])


def read_robomimic(file: Any, name: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads the steps of an open file under D4RL's names, and the keys of what their observations are joined from.

    Observations are those of `STATES`, joined, or else all vectors of the first demonstration in the order of their
    names. Those that follow are read if all demonstrations have them. Raises `DataError`, naming the demonstration, for
    one of another name, that lacks an array, whose arrays have other lengths or that has no step, and for images alone.
    """
    demos = [key for key in file["data"] if key.startswith("demo_")]
    for demo in demos:
        if not re.fullmatch(r"demo_\d+", demo):
            raise DataError(f"{name}: data/{demo} is no demonstration; data/demo_0, data/demo_1 and so on are expected")
    demos.sort(key=lambda demo: int(demo.removeprefix("demo_")))
    keys = _keys(file["data"][demos[0]], name)
    parts = {"observations": "obs"}
    if all("next_obs" in file["data"][demo] for demo in demos):
        parts["next_observations"] = "next_obs"
    rows = [_rows(file["data"][demo], parts, keys, f"{name}: {demo}") for demo in demos]
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}, keys


def _rows(demo: Any, parts: dict[str, str], keys: tuple[str, ...], where: str) -> dict[str, np.ndarray]:
    """The steps of one demonstration under D4RL's names; `parts` are its groups of observations."""
    rows = {key: _joined(demo, part, keys, where) for key, part in parts.items()}
    rows["actions"] = _array(demo, "actions", where)
    rows["rewards"] = _array(demo, "rewards", where).reshape(-1)
    done = as_flags(_array(demo, "dones", where).reshape(-1), where, "dones")
    steps, act = len(rows["observations"]), len(rows["actions"])
    if not steps or not steps == act == rows["rewards"].size == done.size:
        raise DataError(f"{where}: {steps} observations, {act} actions, {rows['rewards'].size} rewards and {done.size} "
                        "dones; as many of each are expected, and at least one")
    last = np.arange(steps) == steps - 1
    return rows | {"terminals": last & done, "timeouts": last & ~done}


def _keys(demo: Any, name: str) -> tuple[str, ...]:
    """The observations that are joined."""
    found = {key: demo["obs"][key].ndim for key in demo["obs"]} if "obs" in demo else {}
    vectors = [key for key, dims in sorted(found.items()) if dims == 2]
    if not vectors:
        listed = ", ".join(found)[:SHOWN] or "none"
        raise DataError(f"{name}: no observation of the first demonstration is a vector ({listed}); states are "
                        "expected, as robomimic's dataset_states_to_obs.py extracts them")
    return tuple(key for key in STATES if key in vectors) if "object" in vectors else tuple(vectors)


def _joined(demo: Any, part: str, keys: tuple[str, ...], where: str) -> np.ndarray:
    """(T, O) the observations of one group."""
    if part not in demo:
        raise DataError(f"{where}: has no {part}; observations are expected of every demonstration")
    return np.concatenate([_array(demo[part], key, where) for key in keys], 1)


def _array(group: Any, key: str, where: str) -> np.ndarray:
    if key not in group:
        raise DataError(f"{where}: has no {key}; observations, actions, rewards and dones are expected of robomimic's "
                        "low-dimensional data")
    return as_numbers(np.asarray(group[key]), where, key)
