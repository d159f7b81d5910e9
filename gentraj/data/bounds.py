"""How much memory the arrays of a file may take: a few bytes can declare, or be expanded to, gigabytes of zeros."""

from __future__ import annotations

from pathlib import Path

from .episodes import DataError

ALWAYS = 1 << 26  # bytes that every file may declare
RATIO = 50  # arrays may be this many times as large as the file; measured data compress far less


def stored(path: Path) -> int:
    """The bytes of a file, or of the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())  # no folders, no links to nothing


def allowance(path: Path) -> int:
    """The bytes that the arrays of a file, or of a folder, may take in memory."""
    return max(ALWAYS, RATIO * stored(path))


def check_declared(path: Path, declared: int) -> None:
    """Raises `DataError` for a file whose arrays would take `declared` bytes and that is too small for them."""
    if declared > allowance(path):
        raise DataError(f"{path}: its {stored(path):,} bytes would become arrays of {declared:,} bytes, "
                        "so it is damaged or meant to fill the memory; if the data really compress that well, save "
                        "them without compression")
