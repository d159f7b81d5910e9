"""FAULTS 11 for whole runs: those that the releases of this format wrote are loaded, act as they did, and go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fixtures
import pytest
import torch
from fixtures import DATA, DISTILLED, KINDS, OUTPUTS, PRESENT, SAVED, STEPS, make, outputs, words
from safetensors.torch import load_file
from small import edit, gentraj

from agents.policies import POLICIES
from gentraj import runs
from gentraj.families import MODELS
from gentraj.networks import NETWORKS
from gentraj.runs.kinds import RUNS
from gentraj.training.checkpoint import FORMAT_VERSION, CheckpointWarning

pytestmark = pytest.mark.filterwarnings(f"ignore::{CheckpointWarning.__module__}.CheckpointWarning")  # another torch


def check(run: runs.Run, name: str, step: int, tolerance: float) -> None:
    """The run is at this step, and samples and acts as was recorded."""
    recorded = {key.removeprefix(f"{step}."): tensor for key, tensor in load_file(PRESENT / name / OUTPUTS).items()
                if key.startswith(f"{step}.")}
    found = outputs(run)
    assert run.step == step and found.keys() == recorded.keys()
    for key, tensor in recorded.items():
        assert torch.isfinite(tensor).all() and tensor.std() > 0
        torch.testing.assert_close(found[key], tensor, rtol=tolerance, atol=tolerance)


# The groups that this narrow U-Net normalises hold one channel, so that a rounding grows a thousandfold in each call;
# with torch 2.6 its plans, of up to 8, differ by 0.005.
LOOSE = {"unet": 0.05}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_of_this_format_acts_as_it_did_and_goes_on(name: str, tmp_path: Path) -> None:
    check(runs.load(PRESENT / name), name, SAVED, LOOSE.get(name, 1e-5))
    for each in (DATA, name, *([DISTILLED[name][0]] if name in DISTILLED else [])):
        (shutil.copytree if (PRESENT / each).is_dir() else shutil.copy)(PRESENT / each, tmp_path / each)
    more = [*words(name, tmp_path), "--resume"] if name in DISTILLED else ["train", "--resume", tmp_path / name]
    assert gentraj(*more) == 0
    check(runs.load(tmp_path / name), name, STEPS, LOOSE.get(name, 1e-4))


def kinds(value: object) -> Iterator[str]:
    """Every `kind` in settings."""
    if isinstance(value, dict):
        yield from ([value["kind"]] if isinstance(value.get("kind"), str) else [])
        for inner in value.values():
            yield from kinds(inner)


def test_there_is_a_run_of_every_kind() -> None:
    """Who adds a kind adds a run of it: a line in fixtures.py, and `python -m tests.faults.fixtures`."""
    there = {kind for name in KINDS for kind in kinds(json.loads((PRESENT / name / "config.json").read_text()))}
    assert {*RUNS, *MODELS, *POLICIES, *NETWORKS} <= there
    assert sorted(path.name for path in PRESENT.iterdir() if path.name != "step-00000003") == sorted([*KINDS, DATA])


def test_they_are_small() -> None:
    size = sum(path.stat().st_size for path in PRESENT.rglob("*") if path.is_file())
    assert size < 70_000 * len(KINDS)


def test_no_run_is_made_anew() -> None:
    """Who changed the format raises FORMAT_VERSION and makes all of them in a folder of their own."""
    with pytest.raises(FileExistsError, match="stands for the runs that users have; raise FORMAT_VERSION instead"):
        make(PRESENT, "flow")
    with pytest.raises(SystemExit, match="nothing is made anew unless FORMAT_VERSION is raised"):
        fixtures.main()


@pytest.mark.filterwarnings("ignore:.*this checkpoint is skipped")
@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION - 1, 0, -1])
@pytest.mark.parametrize(("name", "file"), [("unet", "config.json"), ("iql", "meta.json"),
                                            ("world-model", "config.json"), ("reflow", "meta.json")])
def test_a_run_of_another_format_is_refused_with_both_versions(name: str, file: str, version: int, tmp_path: Path,
                                                               forge, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / name
    shutil.copytree(PRESENT / name, folder)
    shutil.copy(PRESENT / DATA, tmp_path)
    if file == "meta.json":
        forge(next(folder.glob("step-*")), {}, {"format_version": version})
    else:
        edit(folder, lambda config: config.update(format_version=version))
    for command in (["evaluate", folder], ["report", folder], ["train", "--resume", folder]):
        assert gentraj(*command) in (1, 2)
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and f" {version}" in line and f"reads format {FORMAT_VERSION}" in line, line
