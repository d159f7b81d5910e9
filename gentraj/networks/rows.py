"""How many rows a network call has, so that a row of its output does not depend on the rows beside it."""

from __future__ import annotations

from torch import Tensor

# Fewer rows, or an odd remainder of them, take other CPU kernels, which round differently. Measured with torch 2.13 and
# strict products (`gentraj/__init__.py`): multiples of 16 are bit-equal with 1 and 2 threads; with more a row's kernel
# depends on where the threads' shares end.
MIN_ROWS = 16
MAX_ROWS = 1024  # more are several calls, to bound memory


def padding(rows: int) -> int:
    """Rows to add to a call of `rows`, at least one: up to a multiple of `MIN_ROWS`."""
    return -rows % MIN_ROWS


def padded(x_RX: Tensor) -> Tensor:
    """A multiple of `MIN_ROWS` rows, the first repeated."""
    missing = padding(len(x_RX))
    return x_RX[[*range(len(x_RX)), *[0] * missing]] if missing else x_RX
