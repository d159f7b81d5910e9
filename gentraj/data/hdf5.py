"""Reading of HDF5 files: whatever is wrong with one becomes one line that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import one_line
from .validation import DataError, Rounding

CACHE_BYTES = 1 << 20  # of metadata: that of 100,000 arrays may take more memory than the arrays


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an `h5py.File`. Raises `DataError`, naming the file, for anything that goes wrong while it is open."""
    import h5py

    if not os.path.isfile(path):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            cache = file.id.get_mdc_config()
            cache.max_size = cache.initial_size = CACHE_BYTES
            cache.min_size = min(cache.min_size, CACHE_BYTES)
            file.id.set_mdc_config(cache)
            yield file
    except (DataError, Warning):
        raise
    except Exception as error:  # a file may hold anything, or nothing, in place of an array
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and HDF5?") from error


def open_array(file: Any, path: str) -> Any:
    """Opens the array of numbers at `path` without reading it; it has a `shape` and a `dtype`.

    h5py's low-level calls save much time in a file of 100,000 small arrays. Raises KeyError for no array, and
    `DataError` for an array of anything but numbers.
    """
    import h5py

    array = h5py.h5d.open(file.id, path.encode())
    check_numbers(array, file, path)
    return array


def check_numbers(array: Any, file: Any, path: str) -> None:
    """Raises `DataError` for a group in the place of an array, and for an array of anything but numbers."""
    if not hasattr(array, "dtype"):
        raise DataError(f"{file.filename}: {path} is a group; an array is expected, so join the arrays in it")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{file.filename}: {path} has dtype {array.dtype}; numbers are expected")


def read_array(array: Any, out: np.ndarray, rounding: Rounding) -> None:
    """Reads the whole of an `open_array` into `out`, which has the same shape; only another dtype takes a copy."""
    import h5py

    buffer = out if array.dtype == out.dtype else np.empty(array.shape, array.dtype)
    if out.size:
        array.read(h5py.h5s.ALL, h5py.h5s.ALL, buffer)
    if buffer is not out:
        rounding.write(buffer, out)
