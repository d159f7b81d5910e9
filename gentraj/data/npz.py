"""gentraj's own npz files: the arrays of `Episodes`, without pickle, written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..files import new_file
from ..progress import one_line
from .episodes import ARRAYS, Episodes
from .validation import DataError, as_whole

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


def npz_fields(members: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    """Converts the members of gentraj's npz to the fields of `Episodes`, not yet validated."""
    missing = {*ARRAYS, "format", "env", "obs_keys", "goal_dims"} - members.keys()
    if missing:
        raise DataError(f"{path}: not an npz of {FORMAT}; it lacks {', '.join(sorted(missing))}, which "
                        "gentraj.data.save_npz writes")
    if (found := str(members["format"])) != FORMAT:
        raise DataError(f"{path}: not an npz of {FORMAT} but of {' '.join(found[:60].split())}; this version of "
                        "gentraj cannot read it")
    return {key: members[key] for key in ARRAYS} | {
        "extras": {key.removeprefix("extras/"): value for key, value in members.items() if key.startswith("extras/")},
        "goal_dims": tuple(as_whole(members["goal_dims"].ravel(), path.stem, "goal_dims").tolist()),
        "obs_keys": tuple(str(k) for k in members["obs_keys"]), "name": path.stem,
        "env": str(members["env"]) or None}


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz file. Raises `DataError` for a missing or damaged file and for pickled objects."""
    if not os.path.isfile(path):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        first = file.read(8)
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as members:
                return {key: members[key] for key in members.files}
        except Exception as error:  # zip, zlib and numpy's header parser raise their own kinds
            raise DataError(f"{path}: {_what_is_wrong(first, error)}") from error


def _what_is_wrong(first: bytes, error: Exception) -> str:
    """Describes the error, without numpy's advice to trust the file."""
    if first[:2] != b"PK":
        return ("is no npz file, or an incomplete one (numpy.savez writes a zip of arrays, and this begins with "
                f"{first!r}); write it, or copy it, again")
    if isinstance(error, ValueError) and "allow_pickle" in str(error):
        return ("holds Python objects (pickles), which can run code when they are read; save arrays of numbers, and "
                "text as numpy.array(text, dtype=str)")
    return f"cannot be read ({one_line(error)}); the file is damaged or incomplete, write it, or copy it, again"
