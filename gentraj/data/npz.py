"""gentraj's own npz files: the arrays of `Episodes`, without pickle, written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..files import new_file
from ..progress import one_line
from .episodes import ARRAYS, DataError, Episodes, Fields

FORMAT = "gentraj-episodes-1"


def save_npz(episodes: Episodes, path: str | Path) -> Path:
    """Writes the file, completely or not at all, and returns its path. Raises `DataError` for a name without .npz."""
    path = Path(path)
    if path.suffix != ".npz":
        raise DataError(f"{path}: give a name that ends in .npz")
    members: dict[str, Any] = dict(episodes.arrays)
    members |= {f"extras/{key}": value for key, value in episodes.extras.items()}
    members |= {"format": FORMAT, "env": episodes.env or "", "obs_keys": np.array(episodes.obs_keys, dtype=str),
                "goal_dims": np.array(episodes.goal_dims, dtype=np.int64)}
    with new_file(path) as file:
        np.savez(file, **members)
    return path


def npz_fields(members: dict[str, np.ndarray], path: Path) -> Fields:
    """Converts the members of gentraj's npz to the fields of `Episodes`, not yet validated."""
    missing = {*ARRAYS, "format", "env", "obs_keys", "goal_dims"} - members.keys()
    found = str(members.get("format"))
    if missing or found != FORMAT:
        lacks = f"; it lacks {', '.join(sorted(missing))}" if missing else ""
        raise DataError(f"{path}: not an npz of {FORMAT} but of {found[:60]}{lacks}; save_npz writes one")
    return {key: members[key] for key in ARRAYS} | {
        "extras": {key.removeprefix("extras/"): value for key, value in members.items() if key.startswith("extras/")},
        "goal_dims": members["goal_dims"], "obs_keys": tuple(members["obs_keys"]), "name": path.stem,
        "env": str(members["env"]) or None}


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz file. Raises `DataError` for a missing or damaged file and for pickled objects."""
    if not os.path.isfile(path):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
            return {key: members[key] for key in members.files}
    except Exception as error:  # zip, zlib and numpy's header parser raise their own kinds
        if "allow_pickle" in str(error):  # numpy's advice is to trust the file
            raise DataError(f"{path}: is no zip of arrays, or holds Python objects (pickles), which can run code when "
                            "read; save arrays of numbers, and text as numpy.array(text, dtype=str)") from error
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and npz?") from error
