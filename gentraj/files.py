"""The one way in which the files of a run folder are opened: plain files, no links, of a bounded size, written whole.

A run folder may come from a stranger. A link in it would lead reads and writes to files elsewhere, and opening a pipe
or a device may hang or never end. Whatever is read from a run folder is read by `read_file` or `open_plain`, and
whatever is written appears by `new_file`, completely or not at all; only the log of a training and the lock are
written in place, through `open_plain` too. Checks of places that are to be written to are here as well.
"""

from __future__ import annotations

import errno
import glob
import os
import reprlib
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .process import is_alive

WRITING = os.O_WRONLY | os.O_RDWR
NOT_PLAIN = "is not a plain file but a folder, a pipe or a device; a plain file is expected"
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: opening a pipe must not hang; plain files are read as ever


class FileRefused(OSError):
    """A link, a pipe, a device, a folder or a file that is too large is where a plain file is expected."""

    def __init__(self, path: Path, problem: str):
        super().__init__(errno.EINVAL, problem, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class CannotWrite(OSError):
    """A file cannot be written, as on a full disk; the message names it, where the system's own may not."""

    def __init__(self, path: Path, error: OSError):
        super().__init__(error.errno, error.strerror, str(path))

    def __str__(self) -> str:
        return f"{self.filename}: cannot be written: {self.strerror}; what was there before is kept"


def open_plain(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Opens a plain file and returns its descriptor. `flags` are those of `os.open`.

    Raises `FileRefused` for a link, unless `follow` allows one, for a pipe, a device or a folder, and for a file to
    write that has a second name (a hard link), which may be outside the folder; OSError where it cannot be opened.
    """
    if os.path.islink(path) and not follow:  # beside O_NOFOLLOW, whose error depends on the system and the flags
        raise FileRefused(path, "is a link; a plain file is expected, so put a copy in its place")
    try:
        descriptor = os.open(path, flags | FLAGS | (0 if follow else os.O_NOFOLLOW), 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe without a reader, a folder
            raise FileRefused(path, NOT_PLAIN) from error
        raise
    status, problem = os.fstat(descriptor), ""
    if not stat.S_ISREG(status.st_mode):
        problem = NOT_PLAIN
    elif flags & WRITING and status.st_nlink > 1:
        problem = f"has {status.st_nlink} names (hard links), so it is not written to; put a copy in its place"
    if problem:
        os.close(descriptor)
        raise FileRefused(path, problem)
    return descriptor


def read_file(path: Path, most: int | None = None, *, follow: bool = False) -> bytes:
    """Reads a whole file of at most `most` bytes, by default half of the machine's memory.

    Raises `FileRefused` for a larger one before it is read, and what `open_plain` raises.
    """
    most = physical_memory() // 2 if most is None else most
    with open(open_plain(path, follow=follow), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(most + 1) if size <= most else b""
    if (size := max(size, len(data))) > most:
        raise FileRefused(path, f"has {size} bytes, so it is larger than expected: at most {most} bytes")
    return data


def inside(folder: Path, name: str) -> Path:
    """The file or folder `name` in a run folder, which need not exist. Raises `FileRefused` for a link to elsewhere."""
    path = folder / name
    if path.is_symlink():
        raise FileRefused(path, "is a link, which may lead elsewhere; put a copy in its place")
    return path


def physical_memory() -> int:
    """The bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Gives an unused name beside `path`, which nobody can predict, for a file that takes the name `path` afterwards.

    The file is synced to the disk first. If the block raises an exception, `path` stays as it was. Makes missing
    folders. Raises `CannotWrite` for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".tmp-*-{glob.escape(path.name)}"):  # left by processes that were killed
        pid = stale.name.split("-")[1]
        if pid.isdecimal() and not is_alive(int(pid)) and stale.is_file():
            stale.unlink(missing_ok=True)
    unfinished = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(8)}-{path.name}")
    try:
        yield unfinished
        descriptor = open_plain(unfinished)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, path)
    except FileRefused:
        raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, unfinished, str(unfinished)):
            raise  # of another file, that the block uses
        raise CannotWrite(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing, which is synced to the disk before it takes the name `path`; makes missing folders.

    If the block raises an exception, `path` stays as it was. Raises `CannotWrite` where the file cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with new_path(path) as unfinished, open(open_plain(unfinished, flags), "wb") as file:
        yield file


def write_file(path: Path, data: bytes) -> Path:
    """Writes a whole file with `new_file` and returns its path."""
    with new_file(path) as file:
        file.write(data)
    return path


def check_output(path: Path, option: str) -> None:
    """Raises ValueError if no file can be written to `path`; called before the work that produces the file."""
    _check_name(path, option)
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder; give a file")
    check_folder(path.absolute().parent, option)


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError if `path` cannot be a folder because a file is in the way, or if it is not writable."""
    _check_name(path, option)
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ValueError(f"{option}: {existing} is a file, so there can be no folder {path}; give another place")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: {existing} is not writable; give another place")


def _check_name(path: Path, option: str) -> None:
    """Raises ValueError if nothing can have this path, as one that is too long."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: it holds a null character
        problem = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{option} is {reprlib.repr(str(path))}: {problem}; give another place") from error
