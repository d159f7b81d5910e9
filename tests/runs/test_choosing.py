"""Which checkpoint is chosen, by what, and who takes it then."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small import gentraj
from test_held_out import holding_out

from gentraj import runs
from gentraj.randomness import fold, for_choosing
from gentraj.runs.judge.choosing import ACTION_ERROR, IMAGINED, LOG_LIKELIHOOD, RETURN, Ranking
from gentraj.runs.kinds.folder import RunFolder
from gentraj.runs.show.hub import from_pretrained
from gentraj.runs.show.report import Drawing
from gentraj.training.checkpoint import CheckpointWarning, saved_steps


@pytest.fixture(scope="module")
def trained(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy's run with the checkpoints 0 to 4. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("choose") / "run"
    return runs.train(holding_out("iql", hopper_file), folder=folder, progress=False).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_more_of_a_likelihood_and_less_of_a_loss_is_better_and_of_equals_the_newer_is_taken() -> None:
    rows = {1: {LOG_LIKELIHOOD: 3.0, ACTION_ERROR: 1.0, RETURN: 9.0}, 2: {LOG_LIKELIHOOD: 5.0, ACTION_ERROR: 1.0,
            RETURN: 10.0}, 3: {LOG_LIKELIHOOD: 4.0, ACTION_ERROR: 2.0, RETURN: 8.0}}
    assert Ranking(rows, LOG_LIKELIHOOD, {}).order == [2, 3, 1] and Ranking(rows, ACTION_ERROR, {}).order == [2, 1, 3]
    assert Ranking(rows, LOG_LIKELIHOOD, {}).correlations() == {LOG_LIKELIHOOD: 0.5, ACTION_ERROR: pytest.approx(0.866,
                                                                                                               abs=1e-3)}


def test_every_measure_is_printed_and_returns_decide_nothing(run: Path, hopper_file: Path, tmp_path: Path,
                                                             begun: list[int],
                                                             capsys: pytest.CaptureFixture) -> None:
    world = runs.WorldModelRunConfig(str(hopper_file), held_out=0.2, training=runs.load(run).config.training)
    runs.train(world, folder=tmp_path / "world", progress=False)
    out = tmp_path / "measures.json"
    command = "choose", run, "--world", tmp_path / "world", "--world-episodes", 2, "--episodes", 1, "--out", out
    assert gentraj(*command) == 0
    assert begun == 4 * [fold(for_choosing(0), 0)]
    head, *lines = capsys.readouterr().out.splitlines()
    assert {"policy/critic_loss", ACTION_ERROR, LOG_LIKELIHOOD, IMAGINED, RETURN} <= {*head.split()}
    measured = json.loads(out.read_text())
    assert [row["step"] for row in measured["checkpoints"]] == [1, 2, 3, 4]
    assert measured["rank_correlations"].keys() == measured["checkpoints"][0].keys() - {"step", RETURN}
    assert lines[4].split()[:2] == ["rank", "correlation"] and measured["by"] in lines[-1]
    assert gentraj("choose", tmp_path / "world") == 0
    assert "has the least world/loss" in capsys.readouterr().out
    assert gentraj("choose", run, "--by", RETURN) == 2
    assert f"--by is {RETURN}; what was measured is {ACTION_ERROR}, " in capsys.readouterr().err


def test_the_chosen_checkpoint_is_taken_until_the_training_goes_on(run: Path, hopper_file: Path) -> None:
    store = RunFolder(run)
    assert gentraj("choose", run, "--by", "policy/critic_loss", "--use") == 0
    chosen = json.loads((run / RunFolder.CHOICE).read_text())["step"]
    assert runs.load(run).step == chosen and runs.load(run, step=1).step == 1
    store.choose(2)
    config = holding_out("iql", hopper_file)
    runs.train(config, folder=run, resume=True, progress=False)  # nothing is left to train
    assert runs.load(run).step == 2 and from_pretrained(run).step == 2
    shutil.rmtree(run / "step-00000002")
    with pytest.warns(CheckpointWarning, match="no checkpoint of step 2, and the newest is taken"):
        assert runs.load(run).step == 4
    longer = replace(config, training=replace(config.training, steps=5))
    runs.train(longer, folder=run, resume=True, progress=False)
    assert store.chosen() is None and runs.load(run).step == 5


def test_a_run_without_anything_to_choose_from_is_refused_in_a_line(run: Path, hopper_run: Path, small_run: Path,
                                                                    tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture) -> None:
    for step in saved_steps(run)[:-1]:
        shutil.rmtree(run / f"step-0000000{step}")
    for refused, message in ((run, "one trained checkpoint was found, and at least 2 are needed"),
                             (tmp_path, "no run there"),
                             (small_run, "nothing tells its checkpoints apart (no losses on held-out data")):
        assert gentraj("choose", refused) == 2
        error = capsys.readouterr().err.splitlines()
        assert message in error[-1]


def test_the_report_draws_held_out_losses_beside_those_of_the_training(run: Path) -> None:
    picture, = Drawing(runs.load(run), run / "figures", 0).loss()
    assert "held out" in picture.caption.lower() and picture.image is not None and picture.image.is_file()
