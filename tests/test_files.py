"""A file appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gentraj.files import CannotWrite, new_file, short_names, write_file


def test_it_is_written_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "é.bin"
    assert write_file(path, b"whole") == path and path.read_bytes() == b"whole"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)
    with pytest.raises(KeyboardInterrupt), new_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before][: bool(before)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path: Path, call: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own error names no file when it is written, and an unfinished one when it is renamed."""
    path = write_file(tmp_path / "scores.json", b"before")

    def full(*args: object, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *args[:1] if call != "fsync" else ())

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CannotWrite, match=f"^{path}: cannot be written: No space left on device") as error:
        write_file(path, b"after")
    assert error.value.errno == errno.ENOSPC and [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]


def test_what_was_there_is_replaced_once_all_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, events, replace = write_file(tmp_path / "file", b"before"), [], os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(os.fstat(fd).st_size))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    with path.open("rb") as reader:
        write_file(path, b"12345")
        assert reader.read() == b"before" and events == [5, "replace"]


def test_folders_are_told_apart_by_as_few_parts_of_their_paths_as_needed() -> None:
    assert short_names([Path("runs/iql"), Path("swift")]) == ["iql", "swift"]
    assert short_names([Path("a/iql/seed-0"), Path("a/swift/seed-0")]) == ["iql/seed-0", "swift/seed-0"]
    assert short_names([Path("a/b"), Path("a/b"), Path("c/b")]) == ["a/b", "a/b (2)", "c/b"]
