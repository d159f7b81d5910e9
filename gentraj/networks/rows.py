"""The number of rows in a network call, and the choice that no row of the output depends on the other rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

# For fewer rows, or an odd remainder of them, torch takes other CPU kernels, which round differently. Measured with
# torch 2.13 and strict products (`gentraj/__init__.py`): multiples of 16 are bit-equal with 1 and 2 threads; with more
# threads the kernel of a row depends on how the rows are divided among the threads.
MIN_ROWS = 16
MAX_ROWS = 1024  # more rows take several calls, which bounds memory

_INVARIANT: ContextVar[bool] = ContextVar("batch_invariant", default=False)


@contextmanager
def batch_invariant(invariant: bool = True) -> Iterator[None]:
    """Within this block, results do not depend on the batch beside them, bit for bit.

    Otherwise a trajectory may differ in its last bits when others are sampled in the same call. For this, all rows of a
    network call are padded to a multiple of `MIN_ROWS`, so that one plan costs as much as `MIN_ROWS` plans. Rollouts
    turn it on: the score of an episode is then the same whatever the number of environments.
    """
    before = _INVARIANT.set(invariant)
    try:
        yield
    finally:
        _INVARIANT.reset(before)


def padding(rows: int) -> int:
    """The number of rows to add to `rows` for a multiple of `MIN_ROWS`; 0 outside of `batch_invariant`."""
    if not _INVARIANT.get():
        return 0
    return -rows % MIN_ROWS


def padded(x_RX: Tensor) -> Tensor:
    """Repeats the first row up to a multiple of `MIN_ROWS` rows within `batch_invariant`; else `x_RX` as it is."""
    missing = padding(len(x_RX))
    if not missing:
        return x_RX
    return x_RX[[*range(len(x_RX)), *[0] * missing]]
