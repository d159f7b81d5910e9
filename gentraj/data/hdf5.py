"""Safe reading of HDF5 files: a damaged file gives one clear line, nothing is read from other files, and no more memory
is taken than the file's size allows. All of this runs in the process `gentraj.data.reader`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import one_line
from .bounds import check_declared
from .episodes import DataError


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an `h5py.File`. Raises `DataError`, naming the file, for anything that goes wrong while it is open."""
    try:
        with _h5py().File(path, "r") as file:
            cache = file.id.get_mdc_config()  # HDF5's metadata of 100,000 arrays may take more memory than the data
            cache.max_size = cache.initial_size = min(cache.max_size, 1 << 20)
            cache.min_size = min(cache.min_size, cache.max_size)
            file.id.set_mdc_config(cache)
            yield file
    except (DataError, Warning):
        raise
    except Exception as error:  # a file may hold anything, or nothing, in place of an array
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and HDF5?") from error


def open_array(file: Any, path: str) -> Any:
    """Opens the array at `path` without reading it; it has a `shape` and a `dtype`. Raises KeyError for no array.

    h5py's low-level calls save much time in a file of 100,000 small arrays.
    """
    node = _h5py().h5d.open(file.id, path.encode())
    check_array(node, file, path)
    return node


def holds_numbers(file: Any, path: str) -> bool:
    """Whether there is an array of numbers at `path`, rather than nothing, a group, or an array of text."""
    try:
        return _h5py().h5d.open(file.id, path.encode()).dtype.kind in "fiub"
    except (KeyError, TypeError, ValueError):
        return False


def read_array(node: Any, out: np.ndarray) -> None:
    """Reads the whole of an `open_array` into `out`, which has the same shape; only another dtype takes a copy."""
    buffer = out if node.dtype == out.dtype else np.empty(node.shape, node.dtype)
    if out.size:
        everything = _h5py().h5s.ALL
        node.read(everything, everything, buffer)
    if buffer is not out:
        with np.errstate(over="ignore"):  # an overflow becomes infinite, which validation refuses
            out[...] = buffer


def check_array(node: Any, file: Any, path: str) -> None:
    """Raises `DataError` for an array that holds anything but numbers, or that is stored in chunks too large for the
    file, and what `refuse_foreign` raises."""
    refuse_foreign(node, file, path)
    if node.dtype.kind not in "fiub":
        raise DataError(f"{file.filename}: {path} has dtype {node.dtype}; numbers are expected")
    layout = node.get_create_plist()
    if layout.get_layout() == _h5py().h5d.CHUNKED:
        check_declared(Path(file.filename), math.prod(layout.get_chunk()) * node.dtype.itemsize)


def array_bytes(node: Any) -> int:
    """The memory that an array takes as float32, or while it is read if that is more."""
    return math.prod(node.shape) * max(node.dtype.itemsize, 4)


def refuse_foreign(node: Any, file: Any, path: str) -> None:
    """Raises `DataError` for a group in the place of an array, and for an array that lies in another file, as links and
    virtual or external storage allow."""
    h5py = _h5py()
    if not isinstance(node, h5py.h5d.DatasetID):
        raise DataError(f"{file.filename}: {path} is a group; an array is expected, so join the arrays in it")
    layout = node.get_create_plist()
    inside = h5py.h5f.get_name(node) == h5py.h5f.get_name(file.id)
    if not inside or layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
        raise DataError(f"{file.filename}: {path} lies in another file; copy it into this one")


def _h5py() -> Any:
    """The package h5py, whose low-level modules have no types."""
    import h5py

    return h5py
