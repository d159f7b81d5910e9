"""FAULTS 11 and 15 for files that were forged with every hash right: one clear line, in little memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from forked import Forked
from small import edit, gentraj

from gentraj.runs.folder import build, load, read_config
from gentraj.training.checkpoint import CheckpointError, OlderFormat, check_format
from gentraj.trajectory import TrajectorySpec


@pytest.fixture
def run(tmp_path: Path, small_run: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture
def policy_run(tmp_path: Path, hopper_run: Path) -> Path:
    """A resume reads the same of its checkpoint, and its one network is built in no time."""
    return Path(shutil.copytree(hopper_run, tmp_path / "policy"))


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    assert gentraj(*words) in (1, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "is skipped" not in line]
    assert len(lines) == 1 and lines[0].startswith("gentraj: error: ") and "this is a bug" not in lines[0], lines
    return lines[0]


def forge_reference(run: Path, data: bytes) -> None:
    (run / "reference.safetensors").write_bytes(data)
    edit(run, lambda config: config.update(reference_sha256=hashlib.sha256(data).hexdigest()))


def with_value(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.flatten()[-1] = value
    return changed


def masked(tensors: dict[str, torch.Tensor], keep: torch.Tensor) -> dict[str, torch.Tensor]:
    return tensors | {"mask": torch.ones_like(tensors["mask"]) & keep}


FORGERIES: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "no tensors": lambda t: {},
    "no mask": lambda t: {"x": t["x"]},
    "no x": lambda t: {"mask": t["mask"]},
    "another tensor": lambda t: t | {"y": t["x"].clone()},
    "a context of a run without": lambda t: t | {"context": t["x"][:, 0].clone()},
    "integers": lambda t: t | {"x": t["x"].int()},
    "doubles": lambda t: t | {"x": t["x"].double()[:4], "mask": t["mask"][:4]},
    "a mask of numbers": lambda t: t | {"mask": t["mask"].float()[:4], "x": t["x"][:4]},
    "a scalar": lambda t: t | {"x": torch.tensor(1.0)},
    "no windows": lambda t: {name: tensor[:0] for name, tensor in t.items()},
    "fewer masks": lambda t: t | {"mask": t["mask"][:-1]},
    "another width": lambda t: {name: tensor[..., :-1].contiguous() for name, tensor in t.items()},
    "another horizon": lambda t: {name: tensor[:, :-1].contiguous() for name, tensor in t.items()},
    "two dimensions": lambda t: {name: tensor.flatten(1) for name, tensor in t.items()},
    "NaN": lambda t: t | {"x": with_value(t["x"], torch.nan)},
    "infinity": lambda t: t | {"x": with_value(t["x"], -torch.inf)},
    "all padding": lambda t: t | {"mask": torch.zeros_like(t["mask"])},
    "padding first": lambda t: masked(t, (torch.arange(t["mask"].shape[1]) > 2)[:, None]),
    "a hole": lambda t: masked(t, (torch.arange(t["mask"].shape[1]) != 5)[:, None]),
    "half an observation": lambda t: masked(t, torch.arange(t["mask"].shape[2]) != 1),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_15_forged_reference_windows_are_one_error(run: Path, name: str) -> None:
    tensors = safetensors.torch.load_file(run / "reference.safetensors")
    forge_reference(run, safetensors.torch.save(FORGERIES[name](tensors)))
    with pytest.raises(CheckpointError, match=r"reference\.safetensors: .*`gentraj train --resume` writes it anew"):
        load(run)


@pytest.mark.parametrize("data", [b"", b"{}", (1 << 63).to_bytes(8, "little"), bytes(1 << 20), b"\xff" * 100,
                                  (2).to_bytes(8, "little") + b"[]"], ids=["none", "2", "huge", "zeros", "ff", "list"])
def test_15_a_reference_that_is_no_safetensors_file_is_one_error(run: Path, data: bytes,
                                                                 capsys: pytest.CaptureFixture) -> None:
    forge_reference(run, data)
    assert "reference.safetensors: " in refused(capsys, "report", run)


@pytest.mark.parametrize("value", [..., None, 3, [], {"policy/loss": 3}, {"policy/loss": [1.0]},
                                   {"policy/loss": [1.0, 0]}, {"policy/loss": ["1", 1]}, {"policy/loss": [1.0, 0.5]}])
def test_15_forged_sums_of_metrics_are_one_error(policy_run: Path, forge, capsys: pytest.CaptureFixture,
                                                 value: object) -> None:
    forge_meta(policy_run, forge, "sums", value)
    assert "meta.json" in (line := refused(capsys, "train", "--resume", policy_run)) and "sum" in line


@pytest.mark.parametrize("value", [..., None, 3, ["a"]])
def test_15_a_forged_hash_of_the_data_is_one_error(run: Path, forge, value: object,
                                                   capsys: pytest.CaptureFixture) -> None:
    forge_meta(run, forge, "dataset_hash", value)
    assert "meta.json: meta.dataset_hash is " in refused(capsys, "sample", run, "--out", run / "a.npz")
    assert "dataset_hash" in refused(capsys, "train", "--resume", run)


@pytest.mark.parametrize("key", ["run", "data", "training", "components"])
@pytest.mark.parametrize("value", [..., None, 3, ["a"]])
def test_15_forged_settings_are_one_error(policy_run: Path, forge, key: str, value: object,
                                          capsys: pytest.CaptureFixture) -> None:
    forge_meta(policy_run, forge, key, value)
    assert key in refused(capsys, "train", "--resume", policy_run)


def forge_meta(run: Path, forge: Callable, key: str, value: object) -> None:
    """Puts `value` into the newest checkpoint's meta, or takes the key out for an ellipsis."""
    newest = sorted(run.glob("step-*"))[-1]
    meta = json.loads((newest / "meta.json").read_text())["meta"]
    meta.pop(key)
    forge(newest, {}, {"meta": meta if value is ... else meta | {key: value}})


@pytest.mark.parametrize("version", [0, -1, True, 3.0, "3", None, [3]])
def test_11_what_is_no_format_is_not_called_an_older_one(run: Path, version: object,
                                                         capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(CheckpointError, match=r"format_version is .*; a whole number of at least 1") as caught:
        check_format(version, "run")
    assert not isinstance(caught.value, OlderFormat)
    edit(run, lambda config: config.update(format_version=version))
    assert f"format_version is {version!r}; " in refused(capsys, "evaluate", run)


def widen(settings: dict) -> None:
    settings["model"]["network"]["width"] = 99_992


def most() -> int:
    """The most memory that this process has held, in KiB."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))


def measured(good: Path, forged: Path, words: list[str]) -> None:
    gentraj("sample", good, "--out", "a.npz")
    before = most()
    print(gentraj(*words, forged), (most() - before) // 1024)


@pytest.mark.parametrize("words", [["sample", "--out", "a.npz"], ["train", "--resume"]])
def test_15_a_forged_width_is_refused_before_it_takes_memory(run: Path, tmp_path: Path, forge, words: list,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network would have 160 GB of weights."""
    forged = Path(shutil.copytree(run, tmp_path / "forged"))
    edit(forged, lambda config: widen(config["run"]))
    for newest in forged.glob("step-*"):
        meta = json.loads((newest / "meta.json").read_text())["meta"]
        widen(meta["run"])
        forge(newest, {}, {"meta": meta})
    monkeypatch.chdir(tmp_path)
    with Forked(measured, run, forged, words) as child:
        out, err = child.communicate()
    assert child.returncode == 0, err
    code, megabytes = map(int, out.split()[-2:])
    assert code in (1, 2) and megabytes < 200
    message = "the settings describe more weights than its checkpoint holds"
    assert message in err and "Traceback" not in err


def test_15_settings_beyond_this_machine_are_refused_before_they_take_memory(
        run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = read_config(run)
    monkeypatch.setattr("gentraj.runs.folder.physical_memory", lambda: 1000)
    with pytest.raises(ValueError, match="more weights than the memory of this machine holds"):
        build(config, data)


def test_15_a_horizon_that_fills_the_memory_is_refused() -> None:
    for sizes in ((10**9, 1, 4), (1, 10**9, 4), (1, 1, 10**9)):
        with pytest.raises(ValueError, match="is 1000000000; give at most 1000000"):
            TrajectorySpec(*sizes)
