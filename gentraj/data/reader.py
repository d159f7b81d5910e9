"""The process that reads HDF5 and Parquet files for `gentraj.data.apart`, within a bound on its memory.

It gets one line of JSON, and sends one line of JSON and then the bytes of the arrays. It ends with the process that
started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from .apart import Read
from .d4rl import read_d4rl_file
from .episodes import DataError
from .lerobot import read_lerobot_files
from .minari_io import read_minari_file

READERS: Mapping[str, Callable[..., Read]] = {"d4rl": read_d4rl_file, "minari": read_minari_file,
                                              "lerobot": read_lerobot_files}


PACKAGES: Mapping[str, Callable[[], object]] = {"h5py": lambda: import_module("h5py"),
                                                "pyarrow.parquet": lambda: import_module("pyarrow.parquet")}


def main() -> None:
    """Reads the request, answers it and ends the process, without waiting for the thread that reads on."""
    code = 1
    try:
        _answer()
        code = 0
    finally:
        os._exit(code)


def _answer() -> None:
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not come between
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    PACKAGES[request["package"]]()  # what it takes must not count
    _bound_memory(request["memory"])
    header: dict[str, object] = {"error": None, "arrays": {}, "values": {}}
    arrays: dict[str, np.ndarray] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            arrays, header["values"] = READERS[request["reader"]](Path(request["path"]), **request["arguments"])
        except (DataError, ImportError) as error:
            header |= {"error": str(error), "is_import_error": isinstance(error, ImportError)}
    header["warnings"] = [str(each.message) for each in warned if issubclass(each.category, UserWarning)]
    header["arrays"] = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    out.write(json.dumps(header).encode() + b"\n")
    for name in list(arrays):
        out.write(np.ascontiguousarray(arrays.pop(name)).reshape(-1).view(np.uint8).data)
    out.flush()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # ends when the other side is closed, even by SIGKILL
    os._exit(1)


def _bound_memory(more: int) -> None:
    """Lets the process take `more` bytes beside what it has, where the system can say how much that is."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
