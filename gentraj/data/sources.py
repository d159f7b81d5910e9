"""`load_episodes`: loads a dataset by its id or from a file of any known layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..progress import busy
from .d4rl import SUFFIXES, d4rl_fields, d4rl_table, read_d4rl
from .episodes import DataError, Episodes, concatenate
from .lerobot import is_lerobot, read_lerobot
from .minari_io import MINARI_ID, local_ids, read_minari
from .npz import npz_fields, open_npz
from .ogbench import OWN, RECORDED, OGBenchName, ogbench_fields, ogbench_tasks, relabel

FILES = (".npz", *SUFFIXES)


def load_episodes(source: str | Path | Episodes | Sequence[str | Path | Episodes]) -> Episodes:
    """Loads a Minari id (`namespace/name-vN`), a D4RL id, an OGBench name such as cube-single-play-singletask-v0, a
    file (.hdf5 or .h5 in D4RL's or d3rlpy's layout; .npz in gentraj's, D4RL's or OGBench's) or a LeRobot dataset
    (`lerobot:OWNER/NAME` or its folder). Several of these are concatenated.

    Raises `DataError`, with a message of one line, for a dataset that cannot be found, read or used.
    """
    if isinstance(source, Episodes):
        return source
    if isinstance(source, str | Path):
        with busy(f"reading {source}"):
            return Episodes(**read(source))
    return concatenate([load_episodes(one) for one in source])


def split_names(dataset: str) -> list[str]:
    """The names of the datasets that '+' joins.

    A '+' within an absolute path separates nothing, nor does one in `dataset` if that is the path of an existing file
    or folder.
    """
    if os.path.exists(os.path.expanduser(dataset)):
        return [dataset]
    names, name = [], ""
    for piece in dataset.split("+"):
        name = f"{name}+{piece}" if name else piece
        if not name.startswith(("/", "~")) or name.endswith(FILES) or is_lerobot(name):
            names.append(name)
            name = ""
    return [*names, name] if name else names


def read(source: str | Path) -> dict[str, Any]:
    """Reads the fields of `Episodes`, not yet validated."""
    source, path = str(source), Path(os.path.expanduser(source))
    if is_lerobot(source):
        return read_lerobot(source)
    if path.suffix == ".npz":
        return _npz_fields(path)
    if path.suffix in FILES:
        return read_d4rl(path)
    if source in d4rl_table():
        return read_d4rl(source)
    if (name := OGBenchName.of(source)) is not None:
        return _ogbench(name, source)
    if MINARI_ID.fullmatch(source) and ("/" in source or source in local_ids()):
        return read_minari(source)
    close = get_close_matches(source, [*d4rl_table(), *_local_ids()], cutoff=0.5)
    said = " ".join(source.split())  # on one line
    raise DataError(f"'{said}' names no dataset; give a file ({', '.join(FILES)}), a Minari id such as "
                    "D4RL/pointmaze/umaze-v2, a D4RL id such as maze2d-umaze-v1, an OGBench name such as "
                    "cube-single-play-v0, or lerobot:OWNER/NAME"
                    + (f"; did you mean {' or '.join(close)}?" if close else ""))


def _npz_fields(path: Path) -> dict[str, Any]:
    """Reads an npz file in one of three layouts, which differ in the names of their arrays."""
    members = open_npz(path)
    if "format" in members:
        return npz_fields(members, path)
    # OGBench's files have none of these, unless somebody added rewards to one of its compact files, which have valids.
    if {"timeouts", "next_observations"} & members.keys() or ("rewards" in members and "valids" not in members):
        return d4rl_fields(members, path.stem)
    return ogbench_fields(members, path)


def _ogbench(name: OGBenchName, source: str) -> dict[str, Any]:
    """Reads an OGBench dataset by its name, with the rewards of the task that it names."""
    if "/" not in name.source and not name.path.is_file():
        raise DataError(f"{source}: {name.path} does not exist; put OGBench's file there, set OGBENCH_DATASET_DIR"
                        + (f", or give gentraj's own recording, {OWN}{name.env}-singletask-task{name.task}-v0"
                           if name.task and name.env in RECORDED else ""))
    fields: dict[str, Any] = read(name.source if "/" in name.source else name.path) | {"name": source}
    if name.task is not None:
        labelled = relabel(Episodes(**fields), name.env, name.task)
        return {field: getattr(labelled, field) for field in fields} | {
            "goal_dims": (), "obs_keys": (), "env": name.spec_json}
    dims = tuple(entry for part in ogbench_tasks()[name.env]["parts"] for entry in part["entries"])
    known = {"obs_keys": ("observation",), "env": name.spec_json} if name.env in RECORDED else {}
    return fields | {"goal_dims": dims} | known


def _local_ids() -> list[str]:
    with suppress(ImportError):
        return list(local_ids())
    return []
