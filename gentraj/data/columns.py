"""The arrays of many episodes in one HDF5 file, one group each as Minari writes them, laid end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .episodes import DataError
from .hdf5 import open_array, read_array


@dataclass(frozen=True)
class Part:
    """One field: its place in an episode's group, the shape of a row, and how many rows it has more than steps."""

    where: str
    row: tuple[int, ...] = ()
    more: int = 0
    dtype: type = np.float32
    optional: bool = False
    """Left out if some episode has not a row for each observation: infos are no part of the contract."""


def read_columns(file: Any, name: str, episodes: int,
                 parts: Mapping[str, Part]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The lengths (E,) and each part of all episodes. Raises `DataError` naming the episode, or KeyError."""
    lengths = np.array([open_array(file, f"episode_{e}/rewards").shape[0] for e in range(episodes)], dtype=np.int64)
    out = {key: np.empty((int((lengths + part.more).sum()), *part.row), part.dtype) for key, part in parts.items()}
    starts = np.cumsum(lengths) - lengths
    # Episode by episode: field by field would walk through the whole file once for each.
    for e, (T, start) in enumerate(zip(lengths.tolist(), starts.tolist(), strict=True)):
        for key in list(out):
            part, rows = parts[key], T + parts[key].more
            array = _open(file, f"episode_{e}/{part.where}", part)
            if array is not None and array.shape == (rows, *part.row):
                first = start + e * part.more
                read_array(array, out[key][first : first + rows])
            elif part.optional:
                del out[key]
            else:
                raise DataError(f"{name}: episode {e}: {part.where} has shape {getattr(array, 'shape', None)}; its {T} "
                                f"steps need {(rows, *part.row)}")
    return lengths, out


def _open(file: Any, path: str, part: Part) -> Any:
    """The array, or None where an optional part has none."""
    try:
        return open_array(file, path)
    except KeyError:
        if part.optional:
            return None
        raise
