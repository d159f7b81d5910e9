"""Runs are pushed to a hub on this machine by the real huggingface_hub, and pulled with the same bits."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub, fake_hub, matching
from huggingface_hub import ModelCard, cached_assets_path, constants
from small import gentraj

from gentraj import from_pretrained, push_to_hub, runs
from gentraj.training.checkpoint import CheckpointError
from gentraj.trajectory import Condition

NAME = "somebody/umaze"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setattr("huggingface_hub.cached_assets_path",
                        partial(cached_assets_path, assets_dir=tmp_path / "assets"))
    with fake_hub(tmp_path / "cache", monkeypatch) as made:
        yield made


def sample(run: runs.Run) -> torch.Tensor:
    return run.model.sample(Condition.empty(run.model.spec), 3, seed=5)


def test_what_is_pushed_is_pulled_to_the_bit(small_run: Path, hub: FakeHub, tmp_path: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    """By the commands and from Python, with the model card and without the optimisers."""
    run = runs.load(small_run)
    assert gentraj("hub", "push", small_run, NAME, "--private") == 0
    assert capsys.readouterr().out.strip() == f"{constants.ENDPOINT}/{NAME}"
    files = hub.repositories[NAME][-1]
    assert hub.private == {NAME: True} and not matching(files, "*optimizer*") and "config.json" in files
    (tmp_path / "README.md").write_bytes(files["README.md"])
    assert f"gentraj.from_pretrained('{NAME}')" in ModelCard.load(tmp_path / "README.md").text
    pulled = from_pretrained(NAME)
    assert torch.equal(sample(pulled), sample(run))
    assert gentraj("hub", "pull", NAME, tmp_path / "pulled") == 0
    for name, component in runs.load(tmp_path / "pulled").components.items():
        saved = run.components[name].state_dict()
        assert all(torch.equal(value, saved[key]) for key, value in component.state_dict().items())


def test_another_push_replaces_what_was_there_in_one_commit(small_run: Path, hub: FakeHub) -> None:
    """An earlier checkpoint must not be hidden by a later one that was pushed before."""
    push_to_hub(runs.load(small_run), NAME)
    hub.repositories[NAME][-1]["notes.md"] = b"somebody else's"
    push_to_hub(runs.load(small_run, step=4), NAME)
    files = hub.repositories[NAME][-1]
    assert len(hub.repositories[NAME]) == 3 and "notes.md" in files
    assert {name.split("/")[0] for name in matching(files, "step-*")} == {"step-00000004"}
    assert from_pretrained(NAME).step == 4


def test_a_hub_that_is_out_of_reach_or_refuses_is_one_line(small_run: Path, hub: FakeHub,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.load(small_run)
    hub.refuses = True
    for endpoint, why in ((constants.ENDPOINT, "you may not write here"), ("http://127.0.0.1:9", "Connection refused")):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(CheckpointError, match=f"'{NAME}' cannot be pushed to the Hugging Face.*{why}") as error:
            push_to_hub(run, NAME)
        assert "\n" not in str(error.value)


def test_what_cannot_be_pushed_is_refused_before_the_hub_is_asked(small_run: Path, hub: FakeHub, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.load(shutil.copytree(small_run, tmp_path / "run"))
    with pytest.raises(ValueError, match="is no repository of the Hugging Face hub; OWNER/NAME is expected"):
        push_to_hub(run, "umaze")
    with torch.no_grad():
        next(run.inverse.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="the weights of 'inverse' are not those of its step"):
        push_to_hub(run, NAME)
    assert not hub.requests
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'gentraj\[hub\]'"):
        push_to_hub(run, NAME)
