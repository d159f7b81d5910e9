"""What is saved is what is loaded; the protocol that makes it so; and state that fits exactly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gentraj.training.checkpoint import (
    CheckpointError,
    CheckpointWarning,
    NothingSaved,
    RunLocked,
    has_checkpoints,
    load,
    run_lock,
    save,
)
from gentraj.training.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer

W = {"model": {"w": torch.arange(3.0)}}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


@given(st.dictionaries(st.text(min_size=1), st.tuples(
           st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8]),
           st.lists(st.integers(0, 3), max_size=3)), max_size=4),
       st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, kinds: dict, meta: dict) -> None:
    folder = tmp_path_factory.mktemp("run")
    tensors = {key: (torch.rand(shape) * 9).to(dtype) for key, (dtype, shape) in kinds.items() if key != "__metadata__"}
    save(folder, 3, {"model": tensors}, meta)
    loaded = load(folder)
    assert (loaded.step, loaded.meta, set(loaded.components["model"])) == (3, meta, set(tensors))
    assert all(torch.equal(loaded.components["model"][k], t) and loaded.components["model"][k].dtype == t.dtype
               for k, t in tensors.items())


def test_views_and_tied_weights_are_saved_and_loaded_as_tensors_of_their_own(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    save(tmp_path, 0, {"model": {"a": whole, "b": whole, "t": whole.T}}, {})
    load(tmp_path).components["model"]["t"].zero_()
    assert torch.equal(load(tmp_path).components["model"]["t"], whole.T)


def test_the_newest_and_the_asked_for(tmp_path: Path) -> None:
    for step in (5, 123_456_789, 40):
        save(tmp_path, step, {"model": {"w": torch.tensor(float(step))}}, {})
    assert load(tmp_path).step == 123_456_789
    assert load(tmp_path, 5).components["model"]["w"] == 5
    with pytest.raises(CheckpointError, match="no checkpoint of step 6; there are those of 5, 40, 123456789"):
        load(tmp_path, 6)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, W, {}, keep=2)
    assert steps(tmp_path) == [4, 5] and not list(tmp_path.glob(".tmp-*"))


def test_pruning_counts_from_the_step_just_saved(tmp_path: Path) -> None:
    """After a resume from 1, past a broken 9: that one must not push out the good ones."""
    for step in (1, 9):
        save(tmp_path, step, W, {}, keep=1 if step == 1 else 2)
    (tmp_path / "step-00000009" / "meta.json").unlink()
    save(tmp_path, 5, W, {}, keep=1)
    with pytest.warns(CheckpointWarning, match="step-00000009"):
        assert load(tmp_path).step == 5


def test_a_good_checkpoint_is_never_written_over_and_a_broken_one_is_set_aside(tmp_path: Path) -> None:
    path = save(tmp_path, 1, W, {})
    with pytest.raises(CheckpointError, match="exists already"):
        save(tmp_path, 1, W, {})
    (path / "model.safetensors").write_bytes(b"rot")
    save(tmp_path, 1, W, {})
    assert load(tmp_path).step == 1
    assert [(p / "model.safetensors").read_bytes() for p in tmp_path.glob("broken-*")] == [b"rot"]


def test_nothing_saved(tmp_path: Path) -> None:
    assert not has_checkpoints(tmp_path / "missing")
    with pytest.raises(NothingSaved, match="missing: nothing saved yet; train first"):
        load(tmp_path / "missing")


def test_one_holder_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with run_lock(folder):
        (folder / ".tmp-5-1").mkdir()
        with pytest.raises(RunLocked, match=f"process {os.getpid()} is training here"), run_lock(folder):
            pass
        assert (folder / ".tmp-5-1").exists()  # another's save may be going on
    with run_lock(folder):
        assert not (folder / ".tmp-5-1").exists()


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    save(tmp_path, 7, {"a": {}, "b": {}}, {})
    assert events[:3] == ["a.safetensors", "b.safetensors", "meta.json"] and events[4:] == ["replace", tmp_path.name]


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("0.bias"), "the saved 'model' does not fit: 0.bias is missing"),
    (lambda t: t.update(extra=torch.zeros(1)), "extra is .* no such tensor is expected"),
    (lambda t: t.update({"0.bias": torch.zeros(5)}), r"0.bias is .*\[5\].*; .*\[4\].* is expected"),
    (lambda t: t.update({"0.bias": torch.zeros(4, dtype=torch.float64)}), "0.bias is .* torch.float64"),
])
def test_a_module_takes_what_fits_exactly_or_nothing(change, message: str) -> None:
    tensors = {key: torch.full_like(t, 7) for key, t in module_tensors(net()).items()}
    change(tensors)
    module = net()
    before = {key: t.clone() for key, t in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        restore_module(module, tensors)
    assert all(torch.equal(before[key], t) for key, t in module.state_dict().items())


def stepped(module: nn.Module, fused: bool) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=fused)
    optimizer.zero_grad()
    module[0](torch.ones(3, 2)).sum().backward()  # type: ignore[index]; the BatchNorm gets no gradient, so no state
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_goes_on_where_it_was(fused: bool) -> None:
    first, second = net(), net()
    optimizer = stepped(first, fused)
    saved = {key: t.clone() for key, t in optimizer_tensors(optimizer).items()}
    restore_module(second, module_tensors(first))
    other = torch.optim.AdamW(second.parameters(), lr=0.1, fused=fused)
    restore_optimizer(other, saved)
    for module, o in ((first, optimizer), (second, other)):
        o.zero_grad()
        module[0](torch.ones(3, 2)).square().sum().backward()  # type: ignore[index]
        o.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert saved["0.step"] == 1  # the checkpoint was copied, not adopted


def test_only_adam_can_be_saved() -> None:
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module[0](torch.ones(3, 2)).sum().backward()  # type: ignore[index]
    optimizer.step()
    with pytest.raises(CheckpointError, match="SGD keeps momentum_buffer; only the state of Adam"):
        optimizer_tensors(optimizer)


def test_moments_are_restored_in_the_layout_of_their_parameters() -> None:
    """The fused Adam walks through memory, so that other layouts would mix the entries up."""
    weights = [nn.Parameter(torch.arange(24.0).view(4, 3, 2).transpose(1, 2)) for _ in range(2)]
    one, other = (torch.optim.AdamW([weight], fused=True) for weight in weights)
    for optimizer, weight in ((one, weights[0]), (one, weights[0])):
        weight.grad = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).cumsum(0) * weight.detach()
        optimizer.step()
    weights[1].data.copy_(weights[0].data)
    restore_optimizer(other, {key: tensor.contiguous() for key, tensor in optimizer_tensors(one).items()})
    for optimizer, weight in ((one, weights[0]), (other, weights[1])):
        weight.grad = torch.ones(4, 2, 3)
        optimizer.step()
    assert torch.equal(*weights)
