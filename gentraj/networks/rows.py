"""How many rows a network call has, so that a row of its output does not depend on the rows beside it."""

from __future__ import annotations

from torch import Tensor

MIN_ROWS = 16  # fewer rows take other CPU kernels, which round differently (measured with torch 2.13)
MAX_ROWS = 1024  # more are several calls, to bound memory


def padding(rows: int) -> int:
    """Rows to add."""
    return max(0, MIN_ROWS - rows)


def padded(x_RX: Tensor) -> Tensor:
    """At least `MIN_ROWS` rows, the first repeated."""
    return x_RX if len(x_RX) >= MIN_ROWS else x_RX[[*range(len(x_RX)), *[0] * padding(len(x_RX))]]
