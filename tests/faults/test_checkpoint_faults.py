"""FAULTS 2-4 and 11-15 for checkpoints: whatever happened to the files, only what was saved whole is ever loaded."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from forked import Forked
from hypothesis import given, settings
from hypothesis import strategies as st

from gentraj.training.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    CheckpointWarning,
    NewerFormat,
    RunLock,
    load,
    save,
)

ROOT = Path(__file__).parents[2]


def state(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((2, 3), float(step))}, "optimizer": {"m": torch.full((4,), step)}}


def is_state(folder: Path, step: int) -> bool:
    loaded = load(folder)
    return loaded.step == step and all(
        torch.equal(t, loaded.components[component][key]) for component, tensors in state(step).items()
        for key, t in tensors.items())


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("keep", [1, 2])
def test_crash_at_every_file_operation_of_a_save(tmp_path: Path, crash_at, keep: int, torn: bool) -> None:
    """FAULTS 2 and 12: then there is the old state or the new one, and the next run can go on from it."""
    save(tmp_path / "old", 1, state(1), {})
    with crash_at(10**6) as operations:
        save(shutil.copytree(tmp_path / "old", tmp_path / "whole"), 2, state(2), {}, keep)
    assert operations.count("write") == 3 and ("unlink" in operations) == (keep == 1)
    seen = set()
    for k in range(len(operations)):
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"crash-{k}")
        with crash_at(k, torn):
            save(folder, 2, state(2), {}, keep)
        found = load(folder).step
        assert is_state(folder, found)
        seen.add(found)
        with RunLock(folder):
            assert not list(folder.glob(".tmp-*"))
            assert all(load(folder, int(path.name[5:])) for path in folder.glob("step-*"))  # none is half deleted
            save(folder, found + 1, state(found + 1), {}, keep)
        assert is_state(folder, found + 1)
    assert seen == {1, 2}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "meta.json"])
@pytest.mark.parametrize("cut", [0, 1, 8, 0.5, -1, None])
def test_a_truncated_checkpoint_is_skipped_loudly(tmp_path: Path, name: str, cut: float | None) -> None:
    """FAULTS 3: the one before it is used; with none before it, that is an error and not a fresh start."""
    save(tmp_path, 1, state(1), {})
    damaged = save(tmp_path, 2, state(2), {}) / name
    size = damaged.stat().st_size
    if cut is None:
        damaged.unlink()
    else:
        os.truncate(damaged, int(cut * size) if cut == 0.5 else int(cut) % size)
    with pytest.warns(CheckpointWarning, match=f"step-00000002/{name}.*skipped"):
        assert is_state(tmp_path, 1)
    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="none of its 1 checkpoints is valid"):
        load(tmp_path)


@settings(max_examples=200)
@given(which=st.sampled_from(["model.safetensors", "optimizer.safetensors", "meta.json"]), where=st.floats(0, 1),
       bit=st.integers(0, 7))
def test_no_flipped_bit_loads(tmp_path_factory: pytest.TempPathFactory, which: str, where: float, bit: int) -> None:
    """FAULTS 4."""
    folder = tmp_path_factory.getbasetemp() / "bit-rot"
    if not folder.exists():
        save(folder, 1, state(1), {"rate": 1e-30, "name": "caf\u00e9"})
    path = folder / "step-00000001" / which
    data = bytearray(path.read_bytes())
    data[min(int(where * len(data)), len(data) - 1)] ^= 1 << bit
    original = path.read_bytes()
    path.write_bytes(data)
    try:
        with pytest.warns(CheckpointWarning, match=which), pytest.raises(CheckpointError, match="none of its"):
            load(folder)
    finally:
        path.write_bytes(original)
    assert is_state(folder, 1)


def test_a_newer_format_is_refused_and_not_skipped(tmp_path: Path, forge) -> None:
    """FAULTS 11."""
    save(tmp_path, 1, state(1), {})
    path = save(tmp_path, 2, state(2), {})
    forge(path, {}, {"format_version": FORMAT_VERSION + 1, "new key": 1})
    newer = f"format {FORMAT_VERSION + 1} and this gentraj reads format {FORMAT_VERSION}; install a newer"
    with pytest.raises(NewerFormat, match=newer):
        load(tmp_path)


def test_another_torch_is_one_warning(tmp_path: Path, forge) -> None:
    """FAULTS 11."""
    path = save(tmp_path, 2, state(2), {})
    forge(path, {}, {"versions": {"torch": "1.0"}})
    with pytest.warns(CheckpointWarning, match=re.escape(f"torch 1.0 and this is {torch.__version__}")) as seen:
        assert is_state(tmp_path, 2)
    assert len(seen) == 1


@pytest.mark.filterwarnings("ignore::gentraj.training.checkpoint.CheckpointWarning")  # by another torch
def test_times_copies_and_moves_do_not_matter(tmp_path: Path) -> None:
    """FAULTS 13."""
    for step in (1, 2, 3):
        os.utime(save(tmp_path / "a", step, state(step), {}), (0, 10**9 - step * 10**6))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.move(tmp_path / "a", tmp_path / "\u00e9 \u4e2d" / "c")
    assert is_state(tmp_path / "b", 3) and is_state(tmp_path / "\u00e9 \u4e2d" / "c", 3)
    os.rename(tmp_path / "b" / "step-00000001", tmp_path / "b" / "step-00000009")
    with pytest.warns(CheckpointWarning, match="step-00000009: its meta.json belongs to step 1"):
        assert is_state(tmp_path / "b", 3)


class Trap:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


@pytest.mark.parametrize("dump", [lambda trap, path: path.write_bytes(pickle.dumps(trap)), torch.save])
def test_a_pickle_in_place_of_tensors_is_not_run(tmp_path: Path, forge, dump) -> None:
    """FAULTS 14: not even with every hash right."""
    path = save(tmp_path, 1, state(1), {})
    dump(Trap(tmp_path / "canary"), tmp_path / "trap")
    forge(path, {"model.safetensors": (tmp_path / "trap").read_bytes()})
    with pytest.warns(CheckpointWarning, match=r"model\.safetensors"), pytest.raises(CheckpointError):
        load(tmp_path)
    assert not (tmp_path / "canary").exists()


def header(entries: str, data: bytes = b"") -> bytes:
    return len(entries).to_bytes(8, "little") + entries.encode() + data


def entry(name: str, shape: list[int], begin: int, end: int) -> str:
    return f'"{name}":' + json.dumps({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]})


HOSTILE = {
    "empty": b"",
    "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + b"{}",
    "header past the end": (100).to_bytes(8, "little") + b"{}",
    "overlap": header("{" + entry("a", [2], 0, 8) + "," + entry("b", [2], 4, 12) + "}", bytes(12)),
    "hole": header("{" + entry("a", [1], 4, 8) + "}", bytes(8)),
    "a gigabyte": header("{" + entry("a", [1 << 28], 0, 1 << 30) + "}", bytes(8)),
    "a gigabyte in 8 bytes": header("{" + entry("a", [1 << 28], 0, 8) + "}", bytes(8)),
    "overflow": header("{" + entry("a", [1 << 62, 4], 0, 0) + "}"),
    "brackets": header("[" * 100_000),
    "nested": header('{"a":' * 50_000),
    "unknown dtype": header('{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "a type torch has not": header('{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}', bytes(8)),
    "a shape torch has not": header("{" + entry("a", [0, 1 << 62, 1 << 62], 0, 0) + "}"),
    "not utf-8": (2).to_bytes(8, "little") + b"\xff\xff",
}

HOSTILE_META = {
    "meta brackets": b'{"a":' + b"[" * 100_000,
    "meta duplicate": b'{"step": 1, "step": 1}',
    "meta list": b"[]",
    "meta long": b" " * (1 << 25),
    "meta hash": b'{"sha256": "\\ud800"}',
}


def most() -> int:
    """The most memory that this process has held, in KiB; getrusage's begins with what the parent held."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))


def load_all(*folders: Path) -> None:
    warnings.simplefilter("ignore")
    before, began = most(), time.process_time()
    for folder in folders:
        with suppress(CheckpointError):
            load(folder)
            print("loaded", folder)
    print((most() - before) // 1024, time.process_time() - began)


def test_hostile_files_are_refused_quickly_and_in_little_memory(tmp_path: Path, forge) -> None:
    """FAULTS 15."""
    for name, data in HOSTILE.items():
        forge(save(tmp_path / name, 1, state(1), {}), {"model.safetensors": data})
    for name, data in HOSTILE_META.items():
        (save(tmp_path / name, 1, state(1), {}) / "meta.json").write_bytes(data)
    with Forked(load_all, *tmp_path.iterdir()) as child:
        out, err = child.communicate()
    assert child.returncode == 0, err
    *loaded, last = out.splitlines()
    megabytes, seconds = last.split()
    assert not loaded and int(megabytes) < 50 and float(seconds) < 2


@pytest.mark.parametrize("meta", [
    {"files": {"../../canary.safetensors": {"size": 3, "sha256": "0"}}},
    {"files": {"/etc/passwd": {"size": 3, "sha256": "0"}}},
    {"files": []}, {"files": {"a.safetensors": 3}}, {"step": "1"}, {"format_version": "os.system"}, {"more": 1},
])
def test_a_signed_meta_that_lies_is_refused(tmp_path: Path, forge, monkeypatch: pytest.MonkeyPatch, meta: dict) -> None:
    """FAULTS 15 and 16: and no file outside the checkpoint is opened for it."""
    path = save(tmp_path / "run", 1, state(1), {})
    forge(path, {}, meta)
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda p, *a, **k: (opened.append(str(p)), real(p, *a, **k))[1])
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError):
        load(tmp_path / "run")
    assert all(Path(p).parent == path for p in opened)


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_links_and_pipes_are_not_followed(tmp_path: Path, kind: str) -> None:
    """FAULTS 16: a link out of the folder is refused, though what it leads to is valid; a pipe does not hang."""
    elsewhere, path = save(tmp_path / "elsewhere", 1, state(1), {}), tmp_path / "run" / "step-00000001"
    if kind == "folder":
        path.parent.mkdir()
        path.symlink_to(elsewhere)
    else:
        save(path.parent, 1, state(1), {})
        file = path / "model.safetensors"
        file.unlink()
        os.mkfifo(file) if kind == "pipe" else file.symlink_to(elsewhere / "model.safetensors")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError):
        load(tmp_path / "run")


def test_random_bytes_with_right_hashes_are_one_error(tmp_path: Path, forge) -> None:
    """Whatever the safetensors library says about them."""
    rng = random.Random(0)
    path = save(tmp_path, 1, state(1), {})
    good = (path / "model.safetensors").read_bytes()
    for _ in range(200):
        data = bytearray(good)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        forge(path, {"model.safetensors": bytes(data)})
        with warnings.catch_warnings(action="ignore"), suppress(CheckpointError):
            load(tmp_path)
