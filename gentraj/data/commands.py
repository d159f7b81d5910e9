"""The work of `gentraj data list | inspect | import`, and the report on a dataset that `inspect` shows."""

from __future__ import annotations

import json
import reprlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .episodes import Episodes, problems
from .minari_io import local_ids
from .minari_writer import check_new_id, save_minari
from .sources import load_episodes, read, split_names
from .splitting import continues
from .validation import wrong_shapes


def list_datasets() -> list[dict[str, Any]]:
    """The datasets in Minari's local folder, each with its id, episodes, steps, megabytes and description."""
    return [{"id": key, "episodes": row.get("total_episodes"), "steps": row.get("total_steps"),
             "megabytes": row.get("dataset_size"), "description": row.get("description", "")}
            for key, row in local_ids().items()]


def import_file(source: str | Path, dataset_id: str, *, env: str | None = None, overwrite: bool = False) -> str:
    """Writes the episodes of a dataset that `load_episodes` takes as a Minari dataset and returns its id.

    `env` is the environment of the episodes (Gymnasium's EnvSpec as JSON), for files that do not name it. Raises
    `DataError` where the file or the id cannot be used; nothing is written then.
    """
    check_new_id(dataset_id, overwrite=overwrite)  # before the minutes that reading may take
    episodes = load_episodes(source)
    episodes = replace(episodes, env=env or episodes.env)
    save_minari(episodes, dataset_id, description=f"imported from {Path(source).name}", overwrite=overwrite)
    return dataset_id


def inspect(source: str | Path | Episodes) -> str:
    """Describes a dataset in several lines: shapes, ranges, lengths, returns, ends, goals and every problem found.

    Data with problems, which `Episodes` refuses, are described too. Raises `DataError` where nothing can be read.
    """
    return report(source)[0]


def report(source: str | Path | Episodes) -> tuple[str, int]:
    """Returns the lines of `inspect` and the number of problems in them, the warnings of reading the data included."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        e = source if isinstance(source, Episodes) else _read(source)
    lines = [f"dataset      {e.name}", f"environment  {_environment(e.env)}"]
    if not any(wrong_shapes(e.name, e.arrays, e.extras, e.goal_dims)):
        lines += _episodes(e)
    for key, array in {"obs": e.obs, "act": e.act, "reward": e.reward, **e.extras}.items():
        lines += _ranges(key, array, e.goal_dims if key == "obs" else ())
    all_problems = [*problems(e), *(str(one.message) for one in warned if issubclass(one.category, UserWarning))]
    lines += [f"problems     {len(all_problems) or 'none'}", *(f"  {problem}" for problem in all_problems)]
    return "\n".join(lines), len(all_problems)


def _read(source: str | Path) -> Episodes:
    """One dataset, which need not be valid, or several valid ones that are joined by '+'."""
    names = split_names(str(source))
    if len(names) == 1:
        return Episodes(**read(source), validate=False)
    return load_episodes(names)


def _environment(env: str | None) -> str:
    if not env:
        return "not recorded"
    try:
        return json.loads(env)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"not Gymnasium's EnvSpec as JSON: {reprlib.repr(env)}"


def _episodes(e: Episodes) -> Iterator[str]:
    last = np.cumsum(e.lengths) - 1
    terminated, truncated = e.terminated[last], e.truncated[last]
    ends = {"terminated": terminated & ~truncated, "truncated": truncated & ~terminated, "both": terminated & truncated,
            "neither (read as truncated)": ~terminated & ~truncated}
    goals = f"entries {list(e.goal_dims)} of obs" if e.goal_dims else "no entries of obs named"
    yield f"episodes     {len(e):,} of {e.num_steps:,} steps in all"
    yield (f"continue     {np.count_nonzero(continues(e)):,} go on where the one before was truncated (a training "
           "joins them, unless --no-stitch is given)")
    yield f"length       {_spread(e.lengths)}"
    yield f"return       {_spread(e.returns)}"
    yield "end          " + ", ".join(f"{np.count_nonzero(v):,} {k}" for k, v in ends.items() if v.any())
    yield f"goal         {goals}{', a goal beside every observation' if 'goal' in e.extras else ''}"


def _spread(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}, median {np.median(values):g}, mean {values.mean():g}"


def _ranges(key: str, array: np.ndarray, goal_dims: tuple[int, ...]) -> Iterator[str]:
    """Yields the shape, then one line for each dimension."""
    yield f"{key:<12} {' x '.join(f'{n:,}' for n in array.shape)}"
    if not 1 <= array.ndim <= 2 or array.size == 0:
        return
    columns = array.reshape(len(array), -1)
    with np.errstate(all="ignore"):  # NaN and infinity are shown as they are
        summary = columns.min(0), columns.max(0), columns.mean(0, dtype=np.float64)
    for d, (low, high, mean) in enumerate(zip(*summary, strict=True)):
        notes = ("  constant" if low == high else "") + ("  goal" if d in goal_dims else "")
        yield f"  {d:>3}  {low:>12.5g} to {high:>12.5g}  mean {mean:>12.5g}{notes}"
