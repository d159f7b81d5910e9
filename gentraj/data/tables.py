"""Logs of a plant: tables with a row for each time, as CSV or Parquet, read by pyarrow.

A row holds the observation at a time, the action that was taken then, and the reward for it. The observation of the
next row is what the action led to, so the last row of an episode that did not terminate is an observation alone.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import check_known
from ..progress import counted, one_line, say_once
from .episodes import DataError, Episodes, as_flags

SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;", ".parquet": ""}
"""What may separate the columns, by the end of a file's name."""
TIME_TOLERANCE = 0.5  # of the usual time between two rows, by which it may differ


def is_table(source: str | Path) -> bool:
    """Whether a text is the path of a table, which need not exist."""
    return Path(source).suffix.lower() in SEPARATORS


def read_table(path: str | Path, *, obs: str | Sequence[str], act: str | Sequence[str], reward: str | None = None,
               episode: str | None = None, terminated: str | None = None, time: str | None = None,
               cut_gaps: bool = False) -> Episodes:
    """Reads episodes from a CSV or Parquet file, whose rows are in the order of time.

    `obs` and `act` are the columns of the observation and of the action that was taken on it; their names become those
    of the entries. `reward` is the column of the reward for that action; without it all rewards are 0. `episode` is a
    column that tells episodes apart; without it, an episode ends where `terminated` is set, or with the file.

    `terminated` is 1 where the episode ended for good, such as by a trip, and 0 elsewhere; without it no episode does.
    It is set in the row of the last action, or in a row after it that has an observation and no action. Without such a
    row, the last observation is repeated, as no value is ever asked of the state that a terminal step leads to. Where
    an episode did not end for good, its last row is only an observation, and one line says how many rewards that costs.

    `time` is a column of times, numbers or timestamps, which only finds where rows are missing. A gap is a row with a
    missing value, or a time between two rows that is not the usual one. With `cut_gaps` the episode is cut there, and
    one line says how many pieces there are and what is lost.

    Raises `DataError` for a gap without `cut_gaps`, with its place, for columns that are missing or hold no numbers,
    for episodes whose rows are not together and for flags inside one; ImportError without pyarrow.
    """
    path = Path(os.path.expanduser(path))
    obs_names, act_names = ((names,) if isinstance(names, str) else tuple(names) for names in (obs, act))
    if not obs_names or not act_names:
        raise DataError(f"{path}: obs names {counted(len(obs_names), 'columns')} and act {len(act_names)}; one or "
                        f"more each are expected, of {', '.join(table_columns(path))}")
    if twice := {*act_names, episode} & {*obs_names} | {episode} & {*act_names}:
        raise DataError(f"{path}: the column {', '.join(map(str, twice))} is named for two of episode, obs and act; "
                        "each needs columns of its own")
    numbers = [*obs_names, *act_names, *([reward] if reward else [])]
    values = _columns(path, numbers, [column for column in (episode, terminated, time) if column], words=episode)
    obs_NO, act_NA = (np.stack([values[name] for name in names], 1) for names in (obs_names, act_names))
    N = len(obs_NO)
    reward_N = values[reward] if reward else np.zeros(N)
    terminal_N = as_flags(values[terminated], str(path), terminated) if terminated else np.zeros(N, bool)
    number_N = values[episode] if episode else np.cumsum(terminal_N) - terminal_N
    new_N = np.append(True, np.diff(number_N) != 0)  # the first row of an episode
    last_N = np.append(new_N[1:], True)
    _check_order(path, number_N, new_N, terminal_N, goes_on_N=~last_N if episode else np.ones(N, bool))

    acted_N = np.isfinite(act_NA).all(1) & np.isfinite(reward_N)
    alone_N = last_N & ~np.isfinite(act_NA).any(1) & ~(np.abs(reward_N) > 0)  # an observation alone
    terminal_N = terminal_N & ~alone_N | np.append((terminal_N & alone_N & ~new_N)[1:], False)
    seen_N = np.isfinite(obs_NO).all(1)
    missing_N = ~seen_N | ~acted_N & ~alone_N
    jump_N = _jumps(values[time], new_N) if time else np.zeros(N, bool)
    if (missing_N | jump_N).any() and not cut_gaps:
        n = int(np.argmax(missing_N | jump_N))
        lacking = ", ".join(name for name in numbers if not np.isfinite(values[name][n]))
        what = f"{lacking} missing" if missing_N[n] else f"{time} does not go on as between other rows"
        raise DataError(f"{path}: data row {n + 1}: {what} ({_gaps(missing_N, jump_N)}); fill the gaps, or cut the "
                        "episodes there by cut_gaps=True")

    followed_N = np.append((seen_N & ~jump_N & ~new_N)[1:], False)  # by an observation of the same episode
    step_N = seen_N & acted_N & (followed_N | terminal_N)
    if not step_N.any():
        raise DataError(f"{path}: no row has an action and, in the row after it, an observation of the same episode")
    end_N = terminal_N | ~followed_N | ~np.append(step_N[1:], True)
    arrived_N = np.append(False, (step_N & followed_N)[:-1])
    times_N = (step_N | arrived_N).astype(int) + (step_N & ~followed_N)
    episodes = Episodes(obs_NO.repeat(times_N, 0), act_NA[step_N], reward_N[step_N], terminal_N[step_N],
                        (end_N & ~terminal_N)[step_N], np.diff(np.flatnonzero(end_N[step_N]), prepend=-1),
                        name=path.stem, obs_names=obs_names, act_names=act_names)
    said = []
    if (missing_N | jump_N).any():
        whole, ended = np.count_nonzero(~last_N | terminal_N), np.count_nonzero(terminal_N)
        said.append(f"{_number(new_N, 'episodes')} cut into {counted(len(episodes), 'pieces')} at "
                    f"{_gaps(missing_N, jump_N)}, which loses {whole - episodes.num_steps} of {whole} steps and "
                    f"{ended - np.count_nonzero(episodes.terminated)} of {ended} terminations")
    if (unpaid_N := last_N & ~terminal_N & (np.abs(reward_N) > 0)).any():
        said.append(f"the last rows of {_number(unpaid_N, 'episodes')} are only observations, whose rewards are lost; "
                    "if such an episode ended for good, say so by terminated=COLUMN")
    if said:
        say_once(f"{path}: {'; '.join(said)}")
    return episodes


def _gaps(missing_N: np.ndarray, jump_N: np.ndarray) -> str:
    return f"{_number(missing_N, 'rows')} with missing values and {_number(jump_N, 'jumps')} in time"


def _number(flag_N: np.ndarray, things: str) -> str:
    """The number of "things" that are flagged."""
    return counted(int(np.count_nonzero(flag_N)), things)


def _check_order(path: Path, number_N: np.ndarray, new_N: np.ndarray, terminal_N: np.ndarray,
                 goes_on_N: np.ndarray) -> None:
    """Raises `DataError` for an episode whose rows are in several places, and for flags inside an episode.

    `goes_on_N` are the rows behind which a row of the same episode may be.
    """
    firsts = np.flatnonzero(new_N)
    _, first_K, times_K = np.unique(number_N[firsts], return_index=True, return_counts=True)
    if (times_K > 1).any():
        place = firsts[first_K[np.argmax(times_K > 1)]]
        raise DataError(f"{path}: the rows of the episode that begins in data row {place + 1} are not all together; "
                        "sort the table by episode and time")
    last_N = np.append(new_N[1:], True)
    inside_N = terminal_N & ~last_N & ~np.append(last_N[1:], True)
    inside_N |= terminal_N & goes_on_N & np.append(terminal_N[1:], False)
    if inside_N.any():
        raise DataError(f"{path}: data row {np.argmax(inside_N) + 1} is terminated and its episode goes on; only its "
                        "last action, and an observation after it, may be; leave out the rows after a trip, or give "
                        f"what follows another episode (rows affected: {np.count_nonzero(inside_N)})")


def _jumps(time_N: np.ndarray, new_N: np.ndarray) -> np.ndarray:
    """(N,) true where a row is not as long after the one before it, in the same episode, as rows usually are."""
    if new_N.all():
        return ~new_N
    gap_N = np.diff(time_N, prepend=np.nan)
    usual = np.median(gap_N[~new_N & np.isfinite(gap_N)])
    return ~new_N & ~(np.abs(gap_N - usual) <= TIME_TOLERANCE * usual)


def _columns(path: Path, numbers: Sequence[str], others: Sequence[str], words: str | None) -> dict[str, np.ndarray]:
    """The columns of these names as float64 (N,), NaN where a value is missing; of the one of `words`, which may be
    text, a number for each of its values instead."""
    names = [*dict.fromkeys([*numbers, *others])]
    known = table_columns(path)
    try:
        check_known(names, known, "column")
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    if twice := [name for name in names if known.count(name) > 1]:
        raise DataError(f"{path}: several columns are called {', '.join(twice)}; rename all but one")
    try:
        table = _read(path, names, numbers, words)
    except Exception as error:
        raise _damaged(path, error) from error
    if not len(table):
        raise DataError(f"{path}: has no rows; a row for each time is expected")
    return {name: _values(path, name, table.column(name), name == words) for name in names}


def table_columns(path: Path) -> list[str]:
    """The names of all columns of a table. Raises `DataError` where it cannot be read, ImportError without pyarrow."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{path}: reading it needs the package pyarrow; pip install 'gentraj[tables]'") from error
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix.lower() == ".parquet":
            return parquet.read_schema(path).names
        head, _ = _first_lines(path)
        return next(csv.reader([head], delimiter=_separator(path, head)), [])
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    """What is raised in the place of an error of Arrow, which has kinds of its own for damage."""
    return DataError(f"{path}: cannot be read ({one_line(error)}); numbers are expected in the columns that are named, "
                     "and nothing where a value is missing")


def _read(path: Path, names: Sequence[str], numbers: Sequence[str], words: str | None) -> Any:
    """The columns of these names as an Arrow table. Where no comma separates columns, numbers may have a decimal comma,
    as programs write them in much of Europe, if the second line of the file has one."""
    import pyarrow
    from pyarrow import parquet
    from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

    if path.suffix.lower() == ".parquet":
        with parquet.ParquetFile(path) as file:
            return file.read(names)
    head, second = _first_lines(path)
    separator = _separator(path, head)
    # Arrow would guess from the first megabyte that a column holds whole numbers only.
    types = dict.fromkeys(numbers, pyarrow.float64())
    if words is not None:
        types[words] = pyarrow.string()
    point = "," if separator != "," and "," in second else "."
    return read_csv(path, parse_options=ParseOptions(delimiter=separator), convert_options=ConvertOptions(
        column_types=types, include_columns=names, strings_can_be_null=True, decimal_point=point))


def _first_lines(path: Path) -> tuple[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return file.readline(), file.readline()


def _separator(path: Path, head: str) -> str:
    """What separates the columns of a CSV file with this first line."""
    return max(SEPARATORS[path.suffix.lower()], key=head.count)


def _values(path: Path, name: str, cells: Any, words: bool) -> np.ndarray:
    """One column of `_columns`; times are in units of their own."""
    import pyarrow

    try:
        if words:
            if cells.null_count:
                raise DataError(f"{cells.null_count} rows name no episode")
            return cells.cast(pyarrow.string()).dictionary_encode().combine_chunks().indices.to_numpy()
        if pyarrow.types.is_temporal(cells.type):
            cells = cells.cast(pyarrow.int32() if cells.type.bit_width == 32 else pyarrow.int64())
        return cells.cast(pyarrow.float64(), safe=False).to_numpy()
    except (pyarrow.ArrowException, DataError) as error:
        raise DataError(f"{path}: column '{name}' cannot be used ({one_line(error)}); a number, or for episodes a "
                        "name, is expected in each row") from error
