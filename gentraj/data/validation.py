"""What a dataset must be: conversions of its arrays, and the problems that they can have."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..config import escaped
from ..progress import one_line

PER_STEP = ("act", "reward", "terminated", "truncated")  # all other fields have one row more for each episode
FLAT = ("reward", "terminated", "truncated")  # one number for each step
BLOCK_ROWS = 65536  # converted at a time
LARGE_VALUE = 1e4  # in the units of the data; float32 tells numbers below it apart if they differ by 0.0005
LOST_SHARE = 0.01  # of the range of a column, which its rounding to float32 may cost


class DataError(ValueError):
    """A dataset cannot be used; the message is one line that names the dataset, episode, step, field and value."""

    def __init__(self, message: str = ""):
        super().__init__(escaped(message))


def as_numbers(array: Any, name: str, field: str) -> np.ndarray:
    """The array. Raises `DataError` for one of text or objects, with masked entries, or with rows of several widths."""
    if np.ma.is_masked(array):
        raise DataError(f"{name}: {field} has masked entries; numbers are expected, so leave their episodes out")
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:  # torch raises the latter two for tensors it cannot convert
        raise DataError(f"{name}: {field} is no array of numbers ({one_line(error)}); one array with the rows of all "
                        "episodes, one after the other, is expected") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: {field} has dtype {array.dtype}; numbers are expected")
    return array


def as_float32(array: Any, name: str, field: str) -> np.ndarray:
    """Converts the array to float32, without a copy where it is float32 already.

    Numbers too large become infinite. Warns of columns that float32 flattens.
    """
    array = as_numbers(array, name, field)
    if array.dtype == np.float32:
        return array
    if array.ndim == 0:
        return array.astype(np.float32)
    out, rounding = np.empty(array.shape, np.float32), Rounding(name, field)
    for a in range(0, len(array), BLOCK_ROWS):
        rounding.write(array[a : a + BLOCK_ROWS], out[a : a + BLOCK_ROWS])
    rounding.warn()
    return out


def as_whole(array: Any, name: str, field: str) -> np.ndarray:
    """Converts the array to int64. Raises `DataError` for anything but whole numbers, which may be floats."""
    array = as_numbers(array, name, field)
    if (wrong := array[(array != np.floor(array)) | (np.abs(array) >= 2.0**53)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; whole numbers below 2^53 are expected")
    return array.astype(np.int64)


def as_flags(array: Any, name: str, field: str) -> np.ndarray:
    """Converts the array to bool. Raises `DataError` for anything but 0 and 1, such as NaN, which would be true."""
    array = as_numbers(array, name, field)
    if array.dtype != bool and (wrong := array[(array != 0) & (array != 1)]).size:
        raise DataError(f"{name}: {field} has {wrong.flat[0]}; only 0 and 1, or false and true, are expected")
    return array.astype(bool, copy=False)


class Rounding:
    """What an array loses where it is converted to float32 block by block.

    float32 has 24 binary digits: of Unix times, it tells apart only those that are two minutes apart.
    """

    def __init__(self, name: str, field: str):
        self.name, self.field = name, field
        self.low: Any = np.inf  # of each column, as `high` and `error`
        self.high: Any = -np.inf
        self.error: Any = 0.0

    def write(self, block: np.ndarray, out: np.ndarray) -> None:
        """Writes the block (N, ...) to the float32 array `out`. Numbers too large become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = block
            if block.dtype.itemsize > 2 and block.dtype != np.float32 and block.size:
                self.low = np.minimum(self.low, block.min(0))
                self.high = np.maximum(self.high, block.max(0))
                self.error = np.maximum(self.error, np.abs(block - out.astype(np.float64)).max(0))

    def warn(self) -> None:
        """Warns of columns with large numbers whose differences are lost."""
        low, high = np.ravel(self.low).astype(np.float64), np.ravel(self.high).astype(np.float64)
        error = np.ravel(self.error).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            spread, large = high - low, np.maximum(-low, high) >= LARGE_VALUE
            lost = large & (spread > 0) & (error > LOST_SHARE * spread) & np.isfinite(error)
        if lost.any():
            columns = np.flatnonzero(lost)
            i = columns[0]
            warnings.warn(f"{self.name}: entry {i} of {self.field} is from {low[i]:.10g} to {high[i]:.10g}, and "
                          f"float32 rounds it by up to {error[i]:.3g}, so that different values become the same; "
                          "subtract an offset, such as the smallest value, or leave the entry out (entries affected: "
                          f"{', '.join(map(str, columns))})", stacklevel=3)


def problems(name: str, arrays: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray],
             goal_dims: tuple[int, ...]) -> Iterator[str]:
    """Yields one line for each problem of a dataset's arrays."""
    wrong = list(wrong_shapes(name, arrays, extras, goal_dims))
    yield from wrong or wrong_values(name, arrays, extras)  # with wrong shapes no value belongs to an episode


def wrong_shapes(name: str, arrays: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray],
                 goal_dims: tuple[int, ...]) -> Iterator[str]:
    """Yields one line for each array whose shape does not fit the lengths of the episodes."""
    lengths = arrays["lengths"]
    if lengths.ndim != 1:
        yield f"{name}: lengths has {lengths.ndim} dimensions, shape {lengths.shape}; 1 is expected"
        return
    if len(lengths) == 0:
        yield f"{name}: no episodes; at least one is expected"
        return
    for episode in np.flatnonzero(lengths < 1):
        yield f"{name}: episode {episode} has {lengths[episode]} steps; at least 1 is expected"
    for key in {"obs", *PER_STEP} & extras.keys():
        yield f"{name}: extras has an array named {key}, which is a field of every dataset; give it another name"
    wrong = list(_wrong_sizes(name, lengths, {**arrays, **extras}))
    yield from wrong
    if not wrong:
        yield from _wrong_goals(name, arrays["obs"].shape[1], goal_dims, extras.get("goal"))


def _wrong_sizes(name: str, lengths: np.ndarray, fields: Mapping[str, np.ndarray]) -> Iterator[str]:
    S, E = int(lengths.sum()), len(lengths)
    for key, array in fields.items():
        if key == "lengths":
            continue
        if key in PER_STEP:
            rows, needed = S, f"{S} rows"
        else:
            rows, needed = S + E, f"{S} + {E} = {S + E} rows, one more than actions in each"
        dims, shape = 2, f"({rows}, width)"
        if key in FLAT:
            dims, shape = 1, f"({rows},)"
        if array.ndim != dims:
            yield (f"{name}: {key} has {array.ndim} dimensions, shape {array.shape}; {dims} are expected, shape "
                   f"{shape}")
        elif len(array) != rows:
            yield f"{name}: {key} has {len(array)} rows; {E} episodes of {S} steps in all need {needed}"
        elif not array.size and key != "act":
            yield f"{name}: {key} has width 0; at least one entry is expected"


def _wrong_goals(name: str, width: int, goal_dims: tuple[int, ...], goal: np.ndarray | None) -> Iterator[str]:
    if not all(0 <= dim < width for dim in goal_dims):
        yield f"{name}: goal_dims is {goal_dims}; entries of an observation of width {width} are expected"
    if len({*goal_dims}) < len(goal_dims):
        yield f"{name}: goal_dims is {goal_dims}; each entry once is expected"
    if goal is not None and goal_dims and goal.shape[1] != len(goal_dims):
        yield f"{name}: goal has width {goal.shape[1]}; goal_dims {goal_dims} need {len(goal_dims)}"


def wrong_values(name: str, arrays: Mapping[str, np.ndarray], extras: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields one line for each array with a number that is not finite, and for flags inside an episode."""
    lengths = arrays["lengths"]
    for key, array in {**arrays, **extras}.items():
        # NaN and infinity survive min and max, which need no array as large as the data.
        if array.dtype != np.float32 or array.size == 0 or np.isfinite([array.min(), array.max()]).all():
            continue
        rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
        beyond = ""
        if np.isinf(array[rows[0]]).any():
            beyond = " in float32, which holds no number beyond 3.4e38"
        shown = np.array2string(array[rows[0]], max_line_width=sys.maxsize, threshold=50)
        yield (f"{locate(name, lengths, int(rows[0]), key)}: {key} is {shown}{beyond}; finite numbers within float32 "
               f"are expected (rows affected: {len(rows)})")
    last = np.cumsum(lengths) - 1
    for key in ("terminated", "truncated"):
        inside = arrays[key].copy()
        inside[last] = False
        if inside.any():
            row = int(np.argmax(inside))
            yield (f"{locate(name, lengths, row, key)}: {key} is true inside the episode; only its last step may be "
                   f"(steps affected: {np.count_nonzero(inside)}; split the episode there)")


def locate(name: str, lengths: np.ndarray, row: int, key: str) -> str:
    """Names a row of the flat array `key` by its dataset, episode and step."""
    rows_E = lengths + (key not in PER_STEP)
    ends_E = np.cumsum(rows_E)
    episode = int(np.searchsorted(ends_E, row, side="right"))
    return f"{name}: episode {episode}, step {row - int(ends_E[episode] - rows_E[episode])}"
