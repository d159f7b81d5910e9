"""OGBench's npz files: flat arrays without rewards, in which `terminals` (or a 0 in `valids`) marks the last row of a
trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .d4rl import d4rl_fields
from .episodes import DataError, Episodes, as_numbers
from .npz import open_npz


def load_ogbench(path: str | Path) -> Episodes:
    """Loads a file in OGBench's layout.

    The last row of a trajectory is only its last observation. OGBench's data are reward-free: rewards are 0 unless the
    file has some, and every episode is truncated. Raises `DataError`, naming the file, for another layout and for
    images.
    """
    path = Path(path)
    return Episodes(**ogbench_fields(open_npz(path), path))


def ogbench_fields(members: Mapping[str, np.ndarray], path: Path) -> dict[str, Any]:
    """Converts the members of the npz to the fields of `Episodes`, not yet validated."""
    missing = {"observations", "actions", "terminals"} - members.keys()
    if missing:
        raise DataError(f"{path}: its arrays ({', '.join(sorted(members)[:8])}) are in no known layout; OGBench's and "
                        f"D4RL's have {', '.join(sorted(missing))}, and save_npz(Episodes(...), FILE) writes gentraj's")
    if members["observations"].ndim != 2:
        raise DataError(f"{path}: observations have shape {members['observations'].shape}; images are not supported, "
                        "only vectors (use the state version of the dataset)")
    N = len(members["observations"])
    flag, last = ("valids", 0) if "valids" in members else ("terminals", 1)
    last_N = as_numbers(members[flag], path.stem, flag).astype(bool) == last
    flat = {"observations": members["observations"], "actions": members["actions"], "timeouts": last_N,
            "terminals": np.zeros(N, dtype=bool), "rewards": members.get("rewards", np.zeros(N, np.float32))}
    flat |= {f"infos/{key}": members[key] for key in ("qpos", "qvel") if key in members}
    return d4rl_fields(flat, path.stem, ends_in_observation=True) | {"goal_dims": (0, 1) if "maze" in path.stem else ()}
