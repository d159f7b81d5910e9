"""The score on the way of a training: it changes nothing, and a training that goes on makes the same curve."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from gentraj import runs
from gentraj.config import read_json
from gentraj.envs.evaluation.stepping import EnvironmentFault
from gentraj.envs.making import environment_factory
from gentraj.randomness import fold, for_choosing
from gentraj.runs.kinds.folder import RunFolder, last_evaluations
from gentraj.runs.learn import training
from gentraj.training.log import LogWarning, read_metrics, write_rows


def evaluated_every(steps: int) -> runs.PlannerRunConfig:
    """In episodes of 30 steps."""
    config, short = small.config(), environment_factory("PointMaze_UMaze-v3", {"max_episode_steps": 30})
    return replace(config, env_id=short.spec_json,
                   training=replace(config.training, eval_every=steps, eval_episodes=1))


def same_weights(run: runs.Run, other: runs.Run) -> bool:
    return all(torch.equal(value, other.components[name].state_dict()[key])
               for name, part in run.components.items() for key, value in part.state_dict().items())


def test_evaluating_on_the_way_changes_no_bit_and_resumes_to_the_same_curve(small_run: Path, tmp_path: Path,
                                                                            capsys: pytest.CaptureFixture) -> None:
    run = runs.train(evaluated_every(4), folder=tmp_path / "run", progress=False)
    assert same_weights(run, runs.load(small_run))
    rows = RunFolder(run.folder).curve()
    assert [row["step"] for row in rows] == [4, 6] and {"return_mean", "return_ci95", "success_rate"} <= rows[0].keys()
    assert "step 4: return " in capsys.readouterr().err
    shutil.rmtree(run.folder / "step-00000006")
    shutil.rmtree(run.folder / "step-00000004")
    assert same_weights(runs.train(evaluated_every(4), folder=run.folder, resume=True, progress=False), run)
    assert RunFolder(run.folder).curve() == rows


def test_a_learning_curve_has_no_episode_that_is_reported(small_run: Path, tmp_path: Path, begun: list[int]) -> None:
    run = runs.train(evaluated_every(6), folder=tmp_path / "run", progress=False)
    assert begun == [fold(for_choosing(0), 0)]
    begun.clear()
    run.evaluate(episodes=2, baselines=False, progress=False)
    assert begun == [fold(0, 0), fold(0, 1)]


def test_the_scores_of_a_run_state_the_mean_over_its_last_three_evaluations(small_run: Path, tmp_path: Path) -> None:
    """Those up to its checkpoint: a learning curve may go on after it."""
    scores = [{"step": step, "return_mean": 10.0 * step, "success_rate": step / 10} for step in (1, 2, 4, 5, 6, 8)]
    expected = {"steps": [4, 5, 6], "return_mean": 50.0, "success_rate": pytest.approx(0.5)}
    assert last_evaluations(scores, 6) == expected
    assert last_evaluations(scores)["steps"] == [5, 6, 8] and last_evaluations(scores[:2]) is None
    del scores[3]["success_rate"]  # what is not defined in each of them has no mean
    assert last_evaluations(scores, 6) == {"steps": [4, 5, 6], "return_mean": 50.0}

    folder = shutil.copytree(small_run, tmp_path / "run")
    write_rows(folder / RunFolder.CURVE, scores)
    evaluated = runs.load(folder).evaluate(episodes=1, baselines=False)
    assert read_json(folder / "evaluation.json")["last_evaluations"] == {"steps": [4, 5, 6], "return_mean": 50.0}
    assert str(evaluated).splitlines()[-1].endswith("(steps 4, 5, 6): return (mean of episodes) 50")


def test_an_environment_that_fails_costs_a_row_and_not_the_training(umaze, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EnvironmentFault("Maze-v0, step 3: KeyError: 'wall'")

    monkeypatch.setattr(training, "score_agent", fail)
    message = "^step 6: not evaluated, Maze-v0, step 3: KeyError: 'wall'; training goes on$"
    with pytest.warns(LogWarning, match=message):
        run = runs.train(evaluated_every(6), folder=tmp_path / "run", progress=False)
    assert run.step == 6 and RunFolder(run.folder).curve() == []


def test_the_time_of_an_evaluation_is_none_of_the_training(umaze, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for clock in ("monotonic", "process_time"):
        monkeypatch.setattr(f"gentraj.training.log.time.{clock}", lambda: now[0])
    monkeypatch.setattr(training.RunTrainer, "evaluate", lambda *_: now.__setitem__(0, now[0] + 1000.0))
    run = runs.train(evaluated_every(2), folder=tmp_path / "run", progress=False)
    assert sum(row["seconds"] + row["cpu_seconds"] for row in read_metrics(run.folder)) == 0.0


def test_without_an_environment_it_is_refused_before_the_training(umaze, tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture) -> None:
    from gentraj.data import save_npz

    path = save_npz(replace(umaze, env=None), tmp_path / "own.npz")
    words = "train", "pointmaze", "--dataset", path, "--run-dir", tmp_path / "run", "--steps", 2, "--eval-every", 1
    assert small.gentraj(*words) == 2
    assert "--eval-every evaluates in an environment" in capsys.readouterr().err
    assert not (tmp_path / "run/config.json").exists()
