"""HDF5 files without surprises: a damaged one is one clear line, and nothing is read from outside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .episodes import DataError


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The open `h5py.File`. Raises `DataError` naming the file for whatever goes wrong while it is open."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path}: reading HDF5 needs the package h5py; pip install h5py") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            cache = file.id.get_mdc_config()  # what HDF5 remembers of 100,000 arrays takes more memory than they do
            cache.max_size = cache.initial_size = min(cache.max_size, 1 << 20)
            cache.min_size = min(cache.min_size, cache.max_size)
            file.id.set_mdc_config(cache)
            yield file
    except (DataError, Warning):
        raise
    except Exception as error:  # where an array should be there may be anything, or nothing
        raise DataError(f"{path}: cannot be read ({one_line(error)}); is it complete and HDF5?") from error


def open_array(file: Any, path: str) -> Any:
    """The array at `path`, not yet read: it has `shape` and `dtype`. Raises KeyError where there is none.

    These low-level calls matter where a file has 100,000 small arrays.
    """
    from h5py import h5d  # pyright: ignore[reportAttributeAccessIssue]

    node = h5d.open(file.id, path.encode())
    refuse_foreign(node, file, path)
    return node


def read_array(node: Any, out: np.ndarray) -> None:
    """Reads all of `open_array` into `out`, which has its shape; only where the dtypes differ by way of a copy."""
    from h5py import h5s  # pyright: ignore[reportAttributeAccessIssue]

    buffer = out if node.dtype == out.dtype else np.empty(node.shape, node.dtype)
    if out.size:
        node.read(h5s.ALL, h5s.ALL, buffer)
    if buffer is not out:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            out[...] = buffer


def refuse_foreign(node: Any, file: Any, path: str) -> None:
    """An HDF5 file may point into any other file of the machine (links, virtual and external storage): not here."""
    from h5py import h5d, h5f  # pyright: ignore[reportAttributeAccessIssue]

    layout = node.get_create_plist()
    inside = h5f.get_name(node) == h5f.get_name(file.id)
    if not inside or layout.get_external_count() or layout.get_layout() == h5d.VIRTUAL:
        raise DataError(f"{file.filename}: {path} lies in another file; copy it into this one")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
