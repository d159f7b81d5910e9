"""What a person would not notice: an unfinished training, a device, lost scores, and starts far from the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small
from small import gentraj

import gentraj as package
from gentraj import runs
from gentraj.runs.learn.distillation import FewStepRunConfig, distill


@pytest.fixture
def unfinished(small_run: Path, tmp_path: Path) -> Path:
    """A run whose training of 6 steps was killed after its checkpoint 4."""
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    shutil.rmtree(run / "step-00000006")
    return run


def test_an_unfinished_training_is_said_wherever_the_run_is_used(unfinished: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("gentraj.runs.show.report.drawn", lambda *_: [])
    for words in (("evaluate", unfinished, "--episodes", 1, "--no-baselines", *small.SHORT),
                  ("sample", unfinished, "--num", 1, "--out", tmp_path / "a.npz"), ("report", unfinished)):
        assert gentraj(*words) == 0
        out, err = capsys.readouterr()
        assert "is at step 4 of 6" in err and f"gentraj train --resume {unfinished}" in err
        assert words[0] != "evaluate" or "step 4 of 6" in out
    assert "4 of 6" in (unfinished / "report.html").read_text()


def test_random_weights_are_used_only_if_they_are_asked_for(umaze: object, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    runs.train(small.config(steps=1), folder=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "run" / "step-00000001")
    words = "sample", tmp_path / "run", "--num", 1, "--out", tmp_path / "a.npz"
    assert gentraj(*words) == 2 and "step 0 of 1, and its weights are random" in capsys.readouterr().err
    assert gentraj(*words, "--step", 0) == 0
    for method in ("decision", "reflow"):
        words = "distill", tmp_path / "run", "--method", method, "--run-dir", tmp_path / "student"
        assert gentraj(*words) == 2 and "step 0 of 1, and its weights are random" in capsys.readouterr().err
    with pytest.raises(ValueError, match="its weights are random"):
        distill(package.load(tmp_path / "run"), FewStepRunConfig(), tmp_path / "student")


def test_a_device_that_is_not_here_is_refused_in_one_line(small_run: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="device 'meta' cannot be used here") as caught:
        package.load(small_run, device="meta")
    assert "\n" not in str(caught.value)
    assert gentraj("train", "pointmaze", "--dataset", small.DATASET, "--device", "meta", "--dry-run") == 2
    assert "device 'meta' cannot be used here" in capsys.readouterr().err


def test_a_shorter_evaluation_leaves_the_scores_of_a_longer_one(small_run: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    for episodes in (3, 2):
        assert gentraj("evaluate", run, "--episodes", episodes, "--no-baselines", *small.SHORT) == 0
    assert json.loads((run / "evaluation.json").read_text())["episodes"] == 3
    assert json.loads((run / "evaluation-of-2.json").read_text())["episodes"] == 2
    assert "keeps the scores of 3 episodes" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_starts_and_goals_far_outside_the_data_are_named_in_one_warning(small_run: Path, tmp_path: Path,
                                                                        capsys: pytest.CaptureFixture) -> None:
    words = "sample", small_run, "--num", 1, "--out", tmp_path / "a.npz"
    assert gentraj(*words, "--start", 1, 1, 0, 60) == 0
    err = capsys.readouterr().err
    assert err.count("far outside") == 1 and "start[3]" in err and "start[0]" not in err
    assert gentraj(*words, "--start", 1, 1, 0, 0) == 0 and "far outside" not in capsys.readouterr().err
