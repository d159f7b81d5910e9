"""What a dataset must be, checked on construction: bad data is refused, never clipped, dropped or replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .episodes import Episodes

PER_STEP = ("act", "reward", "terminated", "truncated")  # all else has one row more in each episode


class DataError(ValueError):
    """A dataset that is not what it says: one line naming dataset, episode, step, field and value."""


def as_float32(array: np.ndarray, name: str, field: str) -> np.ndarray:
    """The array as float32, not copied where it is one already. What overflows is infinite, and so a problem below."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: {field} has dtype {array.dtype}; numbers are expected")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def check(episodes: Episodes) -> None:
    """Raises `DataError` at the first thing wrong."""
    for problem in problems(episodes):
        raise DataError(problem)


def problems(e: Episodes) -> Iterator[str]:
    """Every problem of a dataset, one line each; nothing for a good one."""
    wrong = list(wrong_shapes(e))
    yield from wrong or wrong_values(e)  # with wrong shapes no value has an episode or a step


def wrong_shapes(e: Episodes) -> Iterator[str]:
    if e.lengths.ndim != 1:
        yield f"{e.name}: lengths has {e.lengths.ndim} dimensions, shape {e.lengths.shape}; 1 is expected"
        return
    if len(e.lengths) == 0:
        yield f"{e.name}: no episodes; at least one is expected"
        return
    for episode in np.flatnonzero(e.lengths < 1):
        yield f"{e.name}: episode {episode} has {e.lengths[episode]} steps; at least 1 is expected"
    for key in {"obs", *PER_STEP} & e.extras.keys():
        yield f"{e.name}: extras has an array named {key}, which is a field of every dataset; give it another name"
    S, E, flat = int(e.lengths.sum()), len(e.lengths), True
    for key, array in _fields(e).items():
        dims, rows = (1 if key in ("reward", "terminated", "truncated") else 2), S + E * _per_episode(key)
        if array.ndim != dims:
            flat = False
            yield f"{e.name}: {key} has {array.ndim} dimensions, shape {array.shape}; {dims} are expected"
        elif len(array) != rows:
            needed = f"{S} + {E} = {rows} rows, one more than actions in each" if _per_episode(key) else f"{S} rows"
            yield f"{e.name}: {key} has {len(array)} rows; {E} episodes of {S} steps in all need {needed}"
    if not flat:
        return
    width = e.obs.shape[-1]
    for dim in e.goal_dims:
        if not 0 <= dim < width:
            yield f"{e.name}: goal_dims is {e.goal_dims}; entries of an observation of width {width} are expected"
            break
    goal = e.extras.get("goal")
    if goal is not None and e.goal_dims and goal.shape[-1] != len(e.goal_dims):
        yield f"{e.name}: goal has width {goal.shape[-1]}; goal_dims {e.goal_dims} need {len(e.goal_dims)}"


def wrong_values(e: Episodes) -> Iterator[str]:
    for key, array in _fields(e).items():
        # NaN and infinity survive min and max, which need no array as large as the data; look closer only then.
        if array.dtype == bool or array.size == 0 or np.isfinite([array.min(), array.max()]).all():
            continue
        rows = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
        yield (f"{place(e, int(rows[0]), key)}: {key} is {array[rows[0]]}; finite numbers within float32 are expected "
               f"({len(rows)} such rows in all)")
    last = np.cumsum(e.lengths) - 1
    for key in ("terminated", "truncated"):
        inside = getattr(e, key).copy()
        inside[last] = False
        if inside.any():
            row = int(np.argmax(inside))
            yield (f"{place(e, row, key)}: {key} is true inside the episode; only its last step may be "
                   f"({np.count_nonzero(inside)} such steps in all; cut the episode there)")


def place(e: Episodes, row: int, key: str) -> str:
    """The row of a flat array, as a person looks for it: dataset, episode, step."""
    rows_E = e.lengths + _per_episode(key)
    ends_E = np.cumsum(rows_E)
    episode = int(np.searchsorted(ends_E, row, side="right"))
    return f"{e.name}: episode {episode}, step {row - int(ends_E[episode] - rows_E[episode])}"


def _fields(e: Episodes) -> dict[str, np.ndarray]:
    return {key: getattr(e, key) for key in ("obs", *PER_STEP)} | dict(e.extras)


def _per_episode(key: str) -> int:
    """How many rows more than steps an episode has in this field."""
    return 0 if key in PER_STEP else 1
