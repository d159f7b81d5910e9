"""`load_episodes`: loads a dataset of any known format. `FORMATS` lists them; to add one, add a line there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..progress import busy
from .d4rl import d4rl_fields, d4rl_table, read_d4rl
from .episodes import Episodes
from .lerobot import PREFIX, is_lerobot_folder, read_lerobot
from .minari_io import is_minari, local_ids, read_minari
from .npz import npz_fields, open_npz
from .ogbench import is_ogbench, ogbench_fields, read_ogbench
from .splitting import concatenate
from .validation import DataError


@dataclass(frozen=True)
class Format:
    """A kind of dataset: a kind of file, or of name."""

    described: str
    """What a user gives, for `--help` and messages."""
    is_one: Callable[[str], bool]
    """Whether a text is the path or the name of such a dataset, which need not exist."""
    read: Callable[[str], dict[str, Any]]
    """Reads the fields of `Episodes`, not yet validated. Raises `DataError`, with the path or the name."""
    is_path: bool = False
    """Whether the text is a path, which a run keeps as an absolute one."""
    known: Callable[[], Iterable[str]] = tuple
    """The names that a misspelt one may have meant."""


def ends_in(*suffixes: str) -> Callable[[str], bool]:
    """Whether a text is the path of a file with one of these suffixes."""
    return lambda source: Path(source).suffix in suffixes


def read_npz(source: str) -> dict[str, Any]:
    """Reads an npz file in one of three layouts, which differ in the names of their arrays."""
    path = Path(source)
    members = open_npz(path)
    if "format" in members:
        return npz_fields(members, path)
    # OGBench's files have none of these, unless somebody added rewards to one of its compact files, which have valids.
    if {"timeouts", "next_observations"} & members.keys() or ("rewards" in members and "valids" not in members):
        return d4rl_fields(members, path.stem)
    return ogbench_fields(members, path)


FORMATS = (
    Format("an .npz file of gentraj, OGBench or in D4RL's layout", ends_in(".npz"), read_npz, is_path=True),
    Format("an .hdf5 or .h5 file in D4RL's or d3rlpy's layout", ends_in(".hdf5", ".h5"), read_d4rl, is_path=True),
    Format("the folder of a LeRobot dataset", is_lerobot_folder, read_lerobot, is_path=True),
    Format("lerobot:OWNER/NAME", lambda source: source.startswith(PREFIX), read_lerobot),
    Format("a D4RL id such as maze2d-umaze-v1", lambda source: source in d4rl_table(), read_d4rl, known=d4rl_table),
    Format("an OGBench name such as cube-single-play-v0", is_ogbench, read_ogbench),
    Format("a Minari id such as D4RL/pointmaze/umaze-v2", is_minari, read_minari, known=local_ids),
)
"""The formats, in the order in which they are tried."""
DESCRIBED = f"{', '.join(one.described for one in FORMATS[:-1])} or {FORMATS[-1].described}"


def load_episodes(source: str | Path | Episodes | Sequence[str | Path | Episodes]) -> Episodes:
    """Loads a dataset of one of `FORMATS`, by its name or path. Several are concatenated.

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
    names, pieces = list[str](), list[str]()
    for piece in dataset.split("+"):
        pieces.append(piece)
        name = "+".join(pieces)
        if not name.startswith(("/", "~")) or is_path(name):
            names.append(name)
            pieces = []
    if pieces:
        names.append("+".join(pieces))
    return names


def is_path(source: str) -> bool:
    """Whether a text is the path of a dataset, which need not exist, and not the name of one."""
    return any(one.is_path and one.is_one(os.path.expanduser(source)) for one in FORMATS)


def read(source: str | Path) -> dict[str, Any]:
    """Reads the fields of `Episodes`, not yet validated."""
    text = os.path.expanduser(source)
    for one in FORMATS:
        if one.is_one(text):
            return one.read(text)
    known: list[str] = []
    for one in FORMATS:
        with suppress(ImportError):
            known += one.known()
    close = get_close_matches(text, known, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise DataError(f"'{' '.join(str(source).split())}' names no dataset; give {DESCRIBED}{hint}")
