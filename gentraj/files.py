"""Atomic writing of files: a file appears completely or not at all. Checks of places that are to be written to."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing, which is synced to the disk before it takes the name `path`; makes missing folders.

    If the block raises an exception, `path` stays as it was. Raises `OSError` where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".tmp-*-{glob.escape(path.name)}"):  # left by processes that were killed
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not is_alive(int(pid)) and stale.is_file():
            stale.unlink(missing_ok=True)
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> Path:
    """Writes a whole file with `new_file` and returns its path."""
    with new_file(path) as file:
        file.write(data)
    return path


def is_alive(pid: int) -> bool:
    """Whether a process with this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process belongs to another user
        pass
    return True


def check_output(path: Path, option: str) -> None:
    """Raises ValueError if no file can be written to `path`; called before the work that produces the file."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give a file")
    check_folder(path.absolute().parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError if `path` cannot be a folder because a file is in the way, or if it is not writable."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"{option}: {existing} is a file, so there can be no folder {path}; give another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {existing} is not writable; give another place")
