"""Reads HDF5 and Parquet files in a process of their own, because a damaged or hostile one may crash or hang the
library that reads it, or fill the memory. The process is `gentraj.data.reader`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from .bounds import allowance, stored
from .episodes import DataError

CHILD = "from gentraj.data.reader import main; main()"
PATIENCE, SPEED = 300.0, 2e6  # seconds that reading any file may take, and bytes that are read in a further second
MEMORY = 1 << 29  # bytes beside those of the arrays, which are held twice while they are converted
Read = tuple[dict[str, np.ndarray], dict[str, Any]]


def read_apart(reader: str, path: Path, *, package: str = "h5py", extra: str = "", **arguments: Any) -> Read:
    """Calls a function of `gentraj.data.reader.READERS` with JSON arguments; returns its arrays and its JSON values.

    `path` is a file or a folder, `package` reads it and comes with gentraj or with an `extra` of it. Its warnings are
    given here too. Raises `DataError`, naming the path, for whatever goes wrong, and ImportError where the package is
    not installed.
    """
    if find_spec(root := package.partition(".")[0]) is None:
        install = f"'gentraj[{extra}]'" if extra else root
        raise ImportError(f"{path}: reading it needs the package {root}; pip install {install}")
    if not os.path.isfile(path) and not (extra and os.path.isdir(path)):  # false for a name that no file can have
        raise DataError(f"{path}: no such file")
    request = {"reader": reader, "path": str(path), "arguments": arguments, "package": package,
               "memory": MEMORY + 4 * allowance(path)}
    seconds = PATIENCE + stored(path) / SPEED
    folders = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "OPENBLAS_NUM_THREADS": "1",
                        "ARROW_DEFAULT_MEMORY_POOL": "system"}
    with subprocess.Popen([sys.executable, "-P", "-c", CHILD], stdin=subprocess.PIPE,  # noqa: S603 (our own code)
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as child:
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), child.kill()))
        timer.daemon = True
        timer.start()
        requests, answers = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
        try:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
            return _received(answers)
        except (EOFError, BrokenPipeError, json.JSONDecodeError) as error:
            child.kill()
            with suppress(BrokenPipeError):  # from what was not sent; closed once more, it raises nothing
                requests.close()
            if late.is_set():
                raise DataError(f"{path}: not read within {seconds:.0f} s; the file is damaged, or the disk is "
                                "very slow") from error
            raise DataError(f"{path}: reading it crashed (exit {child.wait()}); the file is damaged, or takes more "
                            "memory than there is") from error
        finally:
            timer.cancel()
            child.kill()


def _received(stream: BinaryIO) -> Read:
    """What the child sends: a line of JSON, and then the bytes of the arrays."""
    header = json.loads(stream.readline())
    if header["error"] is not None:
        raise (ImportError if header["is_import_error"] else DataError)(header["error"])
    for message in header["warnings"]:
        warnings.warn(message, stacklevel=4)
    return {name: _array(stream, *layout) for name, layout in header["arrays"].items()}, header["values"]


def _array(stream: BinaryIO, dtype: str, shape: list[int]) -> np.ndarray:
    array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data
    while view:
        if not (received := stream.readinto(view)):  # pyright: ignore[reportAttributeAccessIssue]
            raise EOFError
        view = view[received:]
    return array
