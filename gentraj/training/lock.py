"""One live trainer per run folder."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from .checkpoint import CheckpointError


class RunLocked(CheckpointError):
    """Another process trains in this folder."""


class RunLock:
    """Holds a run folder, made if it is missing, while the `with` block runs; the kernel frees it if the process dies.

    Raises `RunLocked` naming the process that holds it, `CheckpointError` where no such folder can be made. Once it
    is held, what interrupted saves have left (folders `.tmp-*`) is removed: nobody else can be writing it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> RunLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            self._take()
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be used as a run folder: {error.strerror}") from error
        for stale in self.folder.glob(".tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _take(self) -> None:
        import fcntl  # not on every system, and only training needs it

        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # the holder may be about to write its number
            holder = os.pread(self.fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self.fd)
            raise RunLocked(f"{self.folder}: process {holder} trains here; wait for it, stop it, "
                            "or give another folder") from None
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
