"""Whatever happened to the files of a checkpoint, only what was saved whole is ever loaded."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gentraj.training.checkpoint import CheckpointError, CheckpointWarning, load, run_lock, save


def state(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((2, 3), float(step))}, "optimizer": {"m": torch.full((4,), step)}}


def is_state(folder: Path, step: int) -> bool:
    loaded = load(folder)
    return loaded.step == step and all(
        torch.equal(t, loaded.components[component][key]) for component, tensors in state(step).items()
        for key, t in tensors.items())


@pytest.mark.parametrize(("keep", "torn"), [(1, False), (2, True)])
def test_crash_at_every_file_operation_of_a_save(tmp_path: Path, crash_at, keep: int, torn: bool) -> None:
    """Then there is the old state or the new one, and the next run can go on from it."""
    save(tmp_path / "old", 1, state(1), {})
    with crash_at(10**6) as operations:
        save(shutil.copytree(tmp_path / "old", tmp_path / "whole"), 2, state(2), {}, keep)
    assert operations.count("fsync") == 5 and ("unlink" in operations) == (keep == 1)
    seen = set()
    for k in range(len(operations)):
        folder = shutil.copytree(tmp_path / "old", tmp_path / f"crash-{k}")
        with crash_at(k, torn):
            save(folder, 2, state(2), {}, keep)
        found = load(folder).step
        assert is_state(folder, found)
        seen.add(found)
        with run_lock(folder):
            assert not list(folder.glob(".tmp-*"))
            assert all(load(folder, int(path.name[5:])) for path in folder.glob("step-*"))  # none is half deleted
            save(folder, found + 1, state(found + 1), {}, keep)
        assert is_state(folder, found + 1)
    assert seen == {1, 2}


@pytest.mark.parametrize("name", ["model.safetensors", "meta.json"])
@pytest.mark.parametrize("cut", [0, -1, None])
def test_a_truncated_checkpoint_is_skipped_loudly(tmp_path: Path, name: str, cut: int | None) -> None:
    """The one before it is used; with none before it, that is an error and not a fresh start."""
    save(tmp_path, 1, state(1), {})
    damaged = save(tmp_path, 2, state(2), {}) / name
    if cut is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:cut])
    with pytest.warns(CheckpointWarning, match=f"step-00000002/{name}.*skipped"):
        assert is_state(tmp_path, 1)
    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match="none of its 1 checkpoints is valid"):
        load(tmp_path)


@settings(max_examples=40)
@given(which=st.sampled_from(["model.safetensors", "meta.json"]), where=st.floats(0, 1), bit=st.integers(0, 7))
def test_no_flipped_bit_loads(tmp_path_factory: pytest.TempPathFactory, which: str, where: float, bit: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "bit-rot"
    if not folder.exists():
        save(folder, 1, state(1), {"rate": 1e-30, "name": "caf\u00e9"})
    path = folder / "step-00000001" / which
    original = path.read_bytes()
    data = bytearray(original)
    data[min(int(where * len(data)), len(data) - 1)] ^= 1 << bit
    path.write_bytes(data)
    try:
        with pytest.warns(CheckpointWarning, match="step-00000001"), pytest.raises(CheckpointError):
            load(folder)
    finally:
        path.write_bytes(original)
    assert is_state(folder, 1)


def test_another_format_is_named_and_another_torch_is_one_warning(tmp_path: Path, forge) -> None:
    path = save(tmp_path, 2, state(2), {})
    forge(path, {}, {"torch": "1.0"})
    with pytest.warns(CheckpointWarning, match=re.escape(f"torch 1.0 and this is {torch.__version__}")) as seen:
        assert is_state(tmp_path, 2)
    assert len(seen) == 1
    forge(path, {}, {"format": 2})
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match=r"has format 2, .* reads format 1"):
        load(tmp_path)


def test_times_copies_and_moves_do_not_matter(tmp_path: Path) -> None:
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


def test_a_pickle_in_place_of_tensors_is_not_run(tmp_path: Path, forge) -> None:
    """Not even with every hash right."""
    path = save(tmp_path, 1, state(1), {})
    torch.save(Trap(tmp_path / "canary"), tmp_path / "trap")
    forge(path, {"model.safetensors": (tmp_path / "trap").read_bytes()})
    with pytest.warns(CheckpointWarning, match=r"model\.safetensors"), pytest.raises(CheckpointError):
        load(tmp_path)
    assert not (tmp_path / "canary").exists()
