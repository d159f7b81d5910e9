"""The zoo: a packed run acts as the run of its averaged weights in half precision, and is unpacked whole or not."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small import gentraj
from torch import Tensor

from benchmarks.zoo import COMMANDS, as_typed
from gentraj.cli.studio import SHOWN
from gentraj.cli.zoo import lines
from gentraj.config import read_json
from gentraj.experiments.compare import entrants
from gentraj.runs import RunFolder, load
from gentraj.runs.kinds import zoo
from gentraj.studio.loading import load_runs
from gentraj.training.checkpoint import CheckpointError
from gentraj.training.optimization import MovingAverage
from gentraj.training.state import module_tensors


@pytest.fixture(scope="module")
def packed(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    zoo.pack(load(small_run), folder)
    return folder


@pytest.fixture
def own_zoo(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packed run "tiny" of a zoo without others; the working directory has no runs."""
    monkeypatch.setattr(zoo, "PACKED", tmp_path / "zoo")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return shutil.copytree(packed, tmp_path / "zoo" / "tiny")


def halved(tensor: Tensor) -> Tensor:
    return tensor.half().float() if tensor.is_floating_point() and tensor.dim() > 1 else tensor


@pytest.mark.parametrize("name", ["small_run", "far_run", "hopper_run"])
def test_a_packed_run_is_the_run_of_its_averages_in_half_precision(name: str, tmp_path: Path,
                                                                   request: pytest.FixtureRequest) -> None:
    run = load(request.getfixturevalue(name))
    zoo.pack(run, tmp_path / "packed", windows=2000)
    zoo.unpack(tmp_path / "packed", tmp_path / "run")
    found = load(tmp_path / "run")
    assert (found.step, found.dataset_hash, found.data) == (run.step, run.dataset_hash, run.data)
    for part, again in zip(run.components.values(), found.components.values(), strict=True):
        for average in (module for module in part.modules() if isinstance(module, MovingAverage)):
            average.hand_back()
        expected = module_tensors(part)
        assert all(torch.equal(tensor, halved(expected[key])) for key, tensor in module_tensors(again).items())
    assert torch.equal(found.reference.x_BHD, run.reference.x_BHD.half().float())
    assert found.kept.keys() == run.kept.keys()
    for key, tensor in found.kept.items():
        assert tensor.dtype == run.kept[key].dtype and torch.equal(tensor, halved(run.kept[key]))


def test_whatever_expects_a_run_takes_its_name(own_zoo: Path) -> None:
    assert gentraj("sample", "zoo:tiny", "--num", 2, "--out", "a.npz") == 0
    run = load("zoo:tiny")
    assert run.folder == Path("runs/zoo/tiny") and len(run.reference.x_BHD) == zoo.WINDOWS
    assert RunFolder(run.folder).starts() == RunFolder(own_zoo).starts() != []
    assert gentraj("measure", "zoo:tiny", "--num", 8) == 0 and (run.folder / RunFolder.MEASURES).exists()
    assert [(each.label, each.runs[0].folder) for each in entrants(["zoo:tiny", "zoo:tiny@2"])] == [
        ("tiny", run.folder), ("tiny@2", run.folder)]
    assert [loaded.name for loaded in load_runs(["zoo:tiny", run.folder])] == ["tiny", "tiny (2)"]


def test_a_name_is_unpacked_only_where_a_run_is_read(own_zoo: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (("train", "zoo:tiny"), ("train", "--resume", "zoo:tiny"), ("evaluate", "zoo:no"),
                  ("distill", "zoo:no", "--method", "decision", "--run-dir", "zoo:tiny")):
        assert gentraj(*words) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not zoo.UNPACKED.exists()
    shutil.copytree(load("zoo:tiny").folder, "zoo:tiny")
    assert load("zoo:tiny").folder == Path("zoo:tiny")  # a run that was trained there


def test_where_nothing_can_be_written_a_line_says_where_it_was_tried(own_zoo: Path,
                                                                     capsys: pytest.CaptureFixture) -> None:
    Path("runs").touch()
    assert gentraj("sample", "zoo:tiny", "--num", 2, "--out", "a.npz") == 1
    error, = capsys.readouterr().err.splitlines()
    assert "runs/zoo/tiny" in error and str(Path.cwd()) in error


def test_a_run_is_unpacked_once_and_nothing_else_is_written(own_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_zoo.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(CheckpointError, match="cannot be written"):
            zoo.run_folder("zoo:tiny")
    assert not list(zoo.UNPACKED.rglob("*"))
    folder = zoo.run_folder("zoo:tiny")
    (folder / "mine").touch()
    assert zoo.run_folder("zoo:tiny") == zoo.run_folder(folder) == folder and (folder / "mine").exists()
    with pytest.raises(CheckpointError, match="runs/zoo/tiny: cannot be written"):
        zoo.unpack(own_zoo, folder)
    assert os.listdir(zoo.UNPACKED) == ["tiny"]
    assert {path: path.stat().st_mtime_ns for path in own_zoo.rglob("*")} == before
    (own_zoo / RunFolder.CONFIG).write_text((own_zoo / RunFolder.CONFIG).read_text() + "\n")  # a later gentraj
    later = zoo.run_folder("zoo:tiny")
    assert later != folder and later == zoo.run_folder("zoo:tiny") and load("zoo:tiny").folder == later


def test_a_process_that_is_slower_takes_what_another_unpacked(own_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = zoo.unpack

    def late(packed: Path, folder: Path) -> None:
        unpack(packed, folder)
        unpack(packed, folder)

    monkeypatch.setattr(zoo, "unpack", late)
    assert zoo.run_folder("zoo:tiny") == zoo.UNPACKED / "tiny"


def test_no_training_goes_on_from_weights_alone(own_zoo: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("train", "--resume", load("zoo:tiny").folder, "--steps", 1000) != 0
    error = capsys.readouterr().err
    assert "optimisers" in error and "finetune" in error and "Traceback" not in error


def failing(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_unknown_name_gets_one_line_with_the_nearest(own_zoo: Path, capsys: pytest.CaptureFixture) -> None:
    assert gentraj("evaluate", "zoo:tinny") == 2
    error = capsys.readouterr().err
    assert "'tinny'" in error and "did you mean 'tiny'" in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="tinny"):
        load("zoo:tinny")


def test_a_part_that_is_missing_is_not_made_up(own_zoo: Path) -> None:
    path = own_zoo / zoo.WEIGHTS
    with safetensors.safe_open(path, "pt") as weights:
        about = weights.metadata()
    tensors = safetensors.torch.load(path.read_bytes())
    del tensors["inverse/network.0.weight"]
    path.write_bytes(safetensors.torch.save(tensors, about))
    with pytest.raises(CheckpointError, match=r"network\.0\.weight is missing"):
        load("zoo:tiny")


def test_the_commands_that_are_listed_are_those_that_were_run() -> None:
    assert set(zoo.names()) == set(COMMANDS)
    for each in map(zoo.entry, zoo.names()):
        assert each.commands == as_typed(each.name) and all(command in lines(each) for command in each.commands)
        ran = RunFolder(zoo.PACKED / each.name).starts()[0]["command"]
        assert ran == f"gentraj {COMMANDS[each.name]} --run-dir runs/{each.name}"
        assert each.commands[-1].replace(zoo.PREFIX, "runs/") == ran
        assert set(re.findall(r"zoo:(\S+)", each.commands[-1])) <= set(COMMANDS)


def test_every_run_of_the_package_has_its_agent_and_its_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert gentraj("zoo") == 0
    listed = capsys.readouterr().out
    for name in zoo.names():
        run = load(f"zoo:{name}")
        scores = zoo.entry(name).scores
        assert (scores["step"], scores["steps"]) == (run.step, run.config.training.steps)
        assert f"zoo:{name} " in listed and scores["agent"] == run.summary
        if run.acting is not None:
            run.agent()
    assert gentraj("evaluate", "zoo:pointmaze-umaze-student", "--episodes", 3, "--out", "three.json") == 0
    found = read_json(Path("three.json"))["returns"]
    card = zoo.entry("pointmaze-umaze-student").scores["returns"][:3]
    assert found == pytest.approx(card, rel=0.1)  # as sums are rounded differently on other machines
    assert set(SHOWN) <= {f"zoo:{name}" for name in zoo.names()}
