"""Files that appear whole or not at all, and checks of the places that outputs go to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class CannotWrite(OSError):
    """A file cannot be written, as on a full disk; the message names it, where the system's own may not."""

    def __init__(self, path: Path, error: OSError):
        super().__init__(error.errno, error.strerror, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}; what was there before is kept"


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Gives an unused name beside `path`, for a file that takes the name `path` once it is synced to the disk.

    If the block raises an exception, `path` stays as it was. Makes missing folders. Raises `CannotWrite` for a full
    disk.
    """
    unfinished = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, unfinished, str(unfinished)):
            raise  # of another file, that the block uses
        raise CannotWrite(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def short_names(folders: Sequence[Path]) -> list[str]:
    """Names that tell folders apart: the last part of each path, or as many of its last parts as all of them need.

    A folder that is given again has a number, too.
    """
    paths = [folder.absolute() for folder in folders]
    names = [path.name for path in paths]
    count = 1
    while len(set(names)) < len(set(paths)):
        count += 1
        names = ["/".join(path.parts[-count:]) for path in paths]
    return [f"{name} ({i + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that takes the name `path` once it is whole and on the disk; makes missing folders.

    If the block raises an exception, `path` stays as it was. Raises `CannotWrite` where the file cannot be written.
    """
    with new_path(path) as unfinished, unfinished.open("wb") as file:
        yield file
        file.flush()


def write_file(path: Path, data: bytes) -> Path:
    """Writes a whole file with `new_file` and returns its path."""
    with new_file(path) as file:
        file.write(data)
    return path


def check_output(path: Path, option: str) -> None:
    """Raises ValueError if no file can be written to `path`; called before the work that produces the file."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give a file")
    check_folder(path.absolute().parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError if `path` cannot be a folder because a file is in the way, or if it is not writable."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.exists(p))
    if not existing.is_dir():
        raise ValueError(f"{option}: {existing} is a file, so there can be no folder {path}; give another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {existing} is not writable; give another place")
