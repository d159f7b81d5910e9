"""The number of rows in a network call, chosen so that no row of the output depends on the other rows."""

from __future__ import annotations

from torch import Tensor

# For fewer rows, or an odd remainder of them, torch takes other CPU kernels, which round differently. Measured with
# torch 2.13 and strict products (`gentraj/__init__.py`): multiples of 16 are bit-equal with 1 and 2 threads; with more
# threads the kernel of a row depends on how the rows are divided among the threads.
MIN_ROWS = 16
MAX_ROWS = 1024  # more rows take several calls, which bounds memory


def padding(rows: int) -> int:
    """The number of rows to add to `rows` for a multiple of `MIN_ROWS`."""
    return -rows % MIN_ROWS


def padded(x_RX: Tensor) -> Tensor:
    """Repeats the first row up to a multiple of `MIN_ROWS` rows."""
    missing = padding(len(x_RX))
    return x_RX[[*range(len(x_RX)), *[0] * missing]] if missing else x_RX
