"""What is in a dataset, for people: shapes, ranges, lengths, returns, ends, goals and every problem found."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .episodes import Episodes, problems, wrong_shapes
from .sources import read


def inspect(source: str | Path | Episodes) -> str:
    """A report of several lines, see `report`."""
    return report(source)[0]


def report(source: str | Path | Episodes) -> tuple[str, int]:
    """Several lines and how many problems they name. Data that `Episodes` would refuse is reported with all its
    problems, and so is what reading warned of; a source that cannot be read at all raises `DataError`.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        e = source if isinstance(source, Episodes) else Episodes(**read(source), validate=False)
    lines = [f"dataset      {e.name}", f"environment  {_environment(e.env)}"]
    lines += [] if any(wrong_shapes(e)) else _episodes(e)
    for key, array in {"obs": e.obs, "act": e.act, "reward": e.reward, **e.extras}.items():
        lines += _ranges(key, array, e.goal_dims if key == "obs" else ())
    found = [*problems(e), *(str(one.message) for one in warned if issubclass(one.category, UserWarning))]
    lines += [f"problems     {len(found) or 'none'}", *(f"  {problem}" for problem in found)]
    return "\n".join(lines), len(found)


def _environment(env: str | None) -> str:
    try:
        return json.loads(env)["id"] if env else "not recorded"
    except (ValueError, TypeError, KeyError):
        return f"not Gymnasium's EnvSpec as JSON: {env}"


def _episodes(e: Episodes) -> Iterator[str]:
    last = np.cumsum(e.lengths) - 1
    terminated, truncated = e.terminated[last], e.truncated[last]
    ends = {"terminated": terminated & ~truncated, "truncated": truncated & ~terminated, "both": terminated & truncated,
            "neither (read as truncated)": ~terminated & ~truncated}
    goals = f"entries {list(e.goal_dims)} of obs" if e.goal_dims else "no entries of obs named"
    yield f"episodes     {len(e):,} of {e.num_steps:,} steps in all"
    yield (f"continue     {np.count_nonzero(e.continues):,} go on where the one before was truncated (`stitched` joins "
           "them)")
    yield f"length       {_spread(e.lengths)}"
    yield f"return       {_spread(e.returns)}"
    yield "end          " + ", ".join(f"{np.count_nonzero(v):,} {k}" for k, v in ends.items() if v.any())
    yield f"goal         {goals}{', a goal beside every observation' if 'goal' in e.extras else ''}"


def _spread(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}, median {np.median(values):g}, mean {values.mean():g}"


def _ranges(key: str, array: np.ndarray, goal_dims: tuple[int, ...]) -> Iterator[str]:
    """The shape, then one line per dimension."""
    yield f"{key:<12} {' x '.join(f'{n:,}' for n in array.shape)}"
    if array.ndim > 2 or array.size == 0:
        return
    columns = array.reshape(len(array), -1)
    with np.errstate(all="ignore"):  # bad numbers are shown as they are
        summary = columns.min(0), columns.max(0), columns.mean(0, dtype=np.float64)
    for d, (low, high, mean) in enumerate(zip(*summary, strict=True)):
        notes = ("  constant" if low == high else "") + ("  goal" if d in goal_dims else "")
        yield f"  {d:>3}  {low:>12.5g} to {high:>12.5g}  mean {mean:>12.5g}{notes}"
