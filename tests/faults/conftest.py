"""What the fault tests share: a tiny run, a crash at the k-th file operation, forged checkpoints, processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
from forked import Forked
from tiny import run_tiny

from gentraj.training import checkpoint
from gentraj.training.checkpoint import meta_json
from gentraj.training.log import read_metrics

ROOT = Path(__file__).parents[2]
OPERATIONS = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir")


class Crash(BaseException):
    """The machine stops here. Not an `Exception`: whoever handles errors must not handle this one."""


@contextmanager
def _crash_at(k: int, torn: bool = False) -> Iterator[list[str]]:
    """The k-th file operation (from 0) does not happen, and none after it; a torn file has half of its bytes.

    Gives the list of the operations that were begun.
    """
    begun: list[str] = []

    def fragile(name: str, real: Callable) -> Callable:
        def operation(*args, **kwargs):
            begun.append(name)
            if len(begun) <= k:
                return real(*args, **kwargs)
            path = Path(f"/proc/self/fd/{args[0]}")
            if torn and name == "fsync" and len(begun) == k + 1 and path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            raise Crash
        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, fragile(name, getattr(os, name)))
        with suppress(Crash):
            yield begun


def _forge(path: Path, files: dict[str, bytes], changes: dict | None = None) -> None:
    """Puts other bytes into files of a checkpoint and `changes` into its meta.json, with every hash right again."""
    body = json.loads((path / "meta.json").read_text())
    for name, data in files.items():
        (path / name).write_bytes(data)
        body["files"][name] = hashlib.sha256(data).hexdigest()
    del body["sha256"]
    (path / "meta.json").write_bytes(meta_json(body | (changes or {})))


def _fingerprint(folder: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What a training leaves: hashes of the newest checkpoint's tensors, weights and states of the optimisers, and the
    rows of metrics without their seconds."""
    files = checkpoint.load(folder).folder.glob("*.safetensors")
    rows = [{key: value for key, value in row.items() if key not in ("seconds", "cpu_seconds")}
            for row in read_metrics(folder)]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}, rows


@pytest.fixture(scope="session")
def crash_at():
    return _crash_at


@pytest.fixture(scope="session")
def forge():
    return _forge


@pytest.fixture(scope="session")
def fingerprint():
    return _fingerprint


@pytest.fixture
def tiny_run(tmp_path: Path) -> Path:
    """A finished run of 60 steps with the checkpoints 20, 40 and 60."""
    run_tiny(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def spawn() -> Iterator[Callable[..., Forked]]:
    """Starts tiny.py in a process of its own; what still runs at the end of the test is killed."""
    started: list[Forked] = []

    def start(*args: object) -> Forked:
        started.append(Forked(tiny.main, *args))
        return started[-1]

    yield start
    for process in started:
        process.close()
