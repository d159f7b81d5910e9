"""What the constraints check of the numbers they are given."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..trajectory import TrajectorySpec

Values = float | tuple[float, ...]  # one number for all entries, or one each


def check_dims(what: object, dims: tuple[int, ...], spec: TrajectorySpec | None = None) -> list[int]:
    """The entries as a list. Raises ValueError for none, for one that comes twice, and for those a spec has not."""
    if not dims or len(set(dims)) < len(dims) or min(dims) < 0:
        raise ValueError(f"{type(what).__name__}.dims are {dims}; different entries 0, 1, .. are expected")
    if spec is not None and max(dims) >= spec.dim:
        raise ValueError(f"its dims are {dims}; a row has the entries 0..{spec.dim - 1} "
                         f"({spec.obs_dim} of the observation, then {spec.act_dim} of the action)")
    return list(dims)


def check_values(what: object, name: str, dims: tuple[int, ...]) -> tuple[float, ...]:
    """A field that is one number for all entries, or one each, as one each. Raises ValueError for other counts, NaN."""
    check_dims(what, dims)
    given: Values = getattr(what, name)
    values = tuple(map(float, given)) if isinstance(given, Iterable) else (given,) * len(dims)
    if len(values) != len(dims) or any(math.isnan(value) for value in values):
        raise ValueError(f"{type(what).__name__}.{name} is {given}; a number, or one for each of {dims}, is expected")
    return values


def check_bound(what: object, name: str) -> None:
    """Raises ValueError for a bound on a length that is negative, NaN or infinite."""
    if not 0 <= getattr(what, name) < math.inf:
        raise ValueError(f"{type(what).__name__}.{name} is {getattr(what, name)}; a number of at least 0 is expected")


def double(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
