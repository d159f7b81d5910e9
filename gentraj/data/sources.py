"""`load_episodes` loads a dataset of any known format, and `inspect` describes one.

`FORMATS` lists the formats, and `WRITERS` those of files to export; to add one, add a line there.
"""

from __future__ import annotations

import json
import os
import reprlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

import numpy as np

from ..files import check_output
from ..progress import busy
from .d4rl import d4rl_fields, d4rl_table, read_d4rl, save_d4rl
from .ends import ends_like_any
from .episodes import DataError, Episodes, Fields, last_steps, npz_fields, open_npz, problems, save_npz, wrong_shapes
from .lerobot import INFO, PREFIX, is_lerobot_folder, read_lerobot
from .minari_io import check_new_id, is_minari, local_ids, read_minari, save_minari
from .ogbench import is_ogbench, ogbench_fields, read_ogbench
from .splitting import concatenate, continues
from .tables import is_table


@dataclass(frozen=True)
class Format:
    """A kind of dataset: a kind of file, or of name."""

    described: str
    """What a user gives, for `--help` and messages."""
    is_one: Callable[[str], bool]
    """Whether a text is the path or the name of such a dataset, which need not exist."""
    read: Callable[[str], Fields]
    """Reads the fields of `Episodes`, not yet validated. Raises `DataError`, with the path or the name."""
    is_path: bool = False
    """Whether the text is a path, which a run keeps as an absolute one."""
    known: Callable[[], Iterable[str]] = tuple
    """The names that a misspelt one may have meant."""


def ends_in(*suffixes: str) -> Callable[[str], bool]:
    """Whether a text is the path of a file with one of these suffixes."""
    return lambda source: Path(source).suffix in suffixes


def read_npz(source: str) -> Fields:
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
    Format("an .npz file of gentraj, of OGBench or in D4RL's layout", ends_in(".npz"), read_npz, is_path=True),
    Format("an .hdf5 or .h5 file in D4RL's or robomimic's layout", ends_in(".hdf5", ".h5"), read_d4rl, is_path=True),
    Format("the folder of a LeRobot dataset", is_lerobot_folder, read_lerobot, is_path=True),
    Format("lerobot:OWNER/NAME", lambda source: source.startswith(PREFIX), read_lerobot),
    Format("a D4RL id such as maze2d-umaze-v1", lambda source: source in d4rl_table(), read_d4rl, known=d4rl_table),
    Format("an OGBench name such as cube-single-play-v0", is_ogbench, read_ogbench),
    Format("a Minari id such as D4RL/pointmaze/umaze-v2", is_minari, read_minari, known=local_ids),
)
"""The formats, in the order in which they are tried."""
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
"""How the names of files end that hold Python's objects."""
DESCRIBED = f"{', '.join(one.described for one in FORMATS[:-1])} or {FORMATS[-1].described}"

WRITERS: Mapping[str, Callable[[Episodes, Path], Path]] = {".hdf5": save_d4rl, ".npz": save_npz}
"""What writes a file of episodes, by the end of its name."""


Data = Episodes | Path | str
"""Episodes, or the path or the name of a dataset."""


def load_episodes(source: Data | Sequence[Data]) -> Episodes:
    """Loads a dataset of one of `FORMATS`, by its name or path. Several are concatenated.

    Raises `DataError`, with a message of one line, for a dataset that cannot be found, read or used, and ValueError for
    what names none.
    """
    if isinstance(source, Episodes):
        return source
    if isinstance(source, str | Path):
        with busy(f"reading {source}"):
            return Episodes(**read(source))
    return concatenate([load_episodes(one) for one in several(source)])


def several(data: Data | Sequence[Data]) -> list[Data]:
    """The datasets, one or several. Raises ValueError for what is neither a path, a name nor Episodes."""
    listed = [data] if isinstance(data, str | Path | Episodes) or not isinstance(data, Sequence) else list(data)
    for each in listed:
        if not isinstance(each, str | Path | Episodes):
            raise ValueError(f"data is a {type(each).__name__}; a path, a name or Episodes are expected, or a list of "
                             "these; gentraj.Episodes(...) makes episodes of arrays")
    return listed


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


def dataset_names(dataset: str) -> list[str]:
    """The names of the datasets that the setting `dataset` joins; files and folders are named without their place."""
    return [Path(name).name if is_path(name) or Path(name).is_absolute() else name
            for name in split_names(dataset)]


def resolve_paths(dataset: str, folder: Path) -> str:
    """The names of datasets, joined by '+', with each file, and each folder of a dataset, as an absolute path.

    A file that is not where its path says is looked for in the run's folder, and in the folder around it. Raises
    ValueError for a path that is not in UTF-8.
    """
    def locate(name: str) -> str:
        path = Path(os.path.expanduser(name))
        if not is_path(name):
            return name
        places = path, folder / path.name, folder.absolute().parent / path.name
        place = next(filter(os.path.exists, places), path).absolute()
        try:
            str(place).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(place)!r} is a path that is not in UTF-8, in which the settings of a run are "
                             "written; rename the folder or the file") from None
        return str(place)

    return "+".join(map(locate, split_names(dataset)))


def read(source: str | Path) -> Fields:
    """Reads the fields of `Episodes`, not yet validated."""
    text = os.path.expanduser(source)
    for one in FORMATS:
        if one.is_one(text):
            return one.read(text)
    raise DataError(f"'{' '.join(str(source).split())}' {_refused(text)}")


def _refused(source: str) -> str:
    """Why none of the `FORMATS` takes a text, and what to do."""
    if is_table(source):
        return (f"is a table whose columns are to be named first; `gentraj data import {quote(source)} --obs COLUMN "
                "... --act COLUMN ... --out FILE.npz`, or gentraj.data.read_table in Python, makes a dataset of it")
    if Path(source).suffix.lower() in PICKLES:
        return ("may run code when it is read, and so is not read; make gentraj.data.Episodes of its arrays and save "
                "them by save_npz")
    if os.path.isdir(source):
        return f"is a folder, and not one of LeRobot's, which has a file {INFO}; give {DESCRIBED}"
    if os.path.isfile(source):
        return f"is a file whose name does not end as those that are read; give {DESCRIBED}"
    known: list[str] = []
    for one in FORMATS:
        with suppress(ImportError):
            known += one.known()
    close = get_close_matches(source, known, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"names no dataset; give {DESCRIBED}{hint}"


def import_episodes(load: Callable[[], Episodes], dataset_id: str, description: str, *, overwrite: bool = False) -> str:
    """Writes the episodes that `load` gives as a Minari dataset and returns its id.

    Raises `DataError` where the data or the id cannot be used; nothing is written then.
    """
    check_new_id(dataset_id, overwrite=overwrite)  # before the minutes that loading may take
    save_minari(load(), dataset_id, description=description, overwrite=overwrite)
    return dataset_id


def export_episodes(load: Callable[[], Episodes], path: Path, option: str = "FILE") -> Path:
    """Writes the episodes that `load` gives with the one of `WRITERS` for this path, which is returned.

    `option` names the path in messages. Raises `DataError` where the data cannot be used, and ValueError where nothing
    can be written to the path.
    """
    if path.suffix not in WRITERS:
        raise DataError(f"{path}: give a name that ends in {', '.join(WRITERS)}")
    check_output(path, option)
    episodes = load()
    with busy(f"writing {path}"):
        return WRITERS[path.suffix](episodes, path)


def inspect(source: str | Path | Episodes) -> str:
    """Describes a dataset in several lines: shapes, ranges, lengths, returns, ends, goals and every problem found.

    Data with problems, which `Episodes` refuses, are described too. Raises `DataError` where nothing can be read.
    """
    return report(source)[0]


def report(source: str | Path | Episodes) -> tuple[str, int]:
    """Returns the lines of `inspect` and the number of problems in them, the warnings of reading the data included."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if isinstance(source, Episodes):
            e = source
        elif len(names := split_names(str(source))) > 1:
            e = load_episodes(names)
        else:
            e = Episodes(**read(source), validate=False)
    lines = [f"dataset      {e.name}", f"environment  {_environment(e.env)}"]
    if not any(wrong_shapes(e)):
        lines += _summary(e)
    for key, array in {"obs": e.obs, "act": e.act, "reward": e.reward, **e.extras}.items():
        lines.append(f"{key:<12} {' x '.join(f'{n:,}' for n in array.shape)}")
        if array.size and array.ndim in (1, 2):
            names = {"obs": e.obs_names, "act": e.act_names}.get(key, ())
            lines += _ranges(array.reshape(len(array), -1), names, e.goal_dims if key == "obs" else ())
    found = [*problems(e), *(str(one.message) for one in warned if issubclass(one.category, UserWarning))]
    lines += [f"problems     {len(found) or 'none'}", *(f"  {problem}" for problem in found)]
    return "\n".join(lines), len(found)


def _environment(env: str | None) -> str:
    if not env:
        return "not recorded"
    try:
        return json.loads(env)["id"]
    except (ValueError, TypeError, KeyError):
        return f"not Gymnasium's EnvSpec as JSON: {reprlib.repr(env)}"


def _summary(e: Episodes) -> Iterator[str]:
    last_S = last_steps(e.lengths)
    terminated, truncated = e.terminated[last_S], e.truncated[last_S]
    ends = {"terminated": terminated & ~truncated, "truncated": truncated & ~terminated, "both": terminated & truncated,
            "neither (read as truncated)": ~terminated & ~truncated}
    goals = f"entries {list(e.goal_dims)} of obs" if e.goal_dims else "no entries of obs named"
    yield f"episodes     {len(e):,} of {e.num_steps:,} steps in all"
    yield (f"continue     {np.count_nonzero(continues(e)):,} go on where the one before was truncated (a training "
           "joins them where its setting stitch is on)")
    for name, values in (("length", e.lengths), ("return", e.returns)):
        yield (f"{name:<12} {values.min():g} to {values.max():g}, median {np.median(values):g}, mean "
               f"{values.mean():g}")
    note = "; terminations look like places where others go on" if ends_like_any(e) else ""
    yield "end          " + ", ".join(f"{np.count_nonzero(v):,} {k}" for k, v in ends.items() if v.any()) + note
    yield f"goal         {goals}{', a goal beside every observation' if 'goal' in e.extras else ''}"


def _ranges(columns: np.ndarray, names: Sequence[str], goal_dims: tuple[int, ...]) -> Iterator[str]:
    """Yields one line for each column."""
    with np.errstate(all="ignore"):  # NaN and infinity are shown as they are
        summary = columns.min(0), columns.max(0), columns.mean(0, dtype=np.float64)
    for d, (low, high, mean) in enumerate(zip(*summary, strict=True)):
        notes = ("  constant" if low == high else "") + ("  goal" if d in goal_dims else "")
        notes += f"  {names[d]}" if names else ""
        yield f"  {d:>3}  {low:>12.5g} to {high:>12.5g}  mean {mean:>12.5g}{notes}"
