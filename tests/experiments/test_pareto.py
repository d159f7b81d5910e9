"""The frontier of cost and worth, and the points that are measured for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small import gentraj

from gentraj.config import read_json
from gentraj.experiments.pareto import ParetoConfig, Point, frontier, pareto
from gentraj.runs.folder import load


def test_a_point_is_on_the_frontier_unless_another_one_is_as_cheap_and_worth_as_much() -> None:
    cost, worth = [1.0, 2.0, 2.0, 3.0, 3.0, 1.0], [5.0, 7.0, 6.0, 7.0, 9.0, 5.0]
    assert frontier(cost, worth) == [True, True, False, False, True, True]


def test_a_run_is_measured_with_its_own_steps_and_with_others(small_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "frontier.json"
    assert gentraj("pareto", small_run, f"{small_run}@4", "--episodes", 0, "--num", 16, "--decisions", 2,
                   "--out", out) == 0
    one, four = read_json(out)["points"]
    assert (one["name"], four["name"]) == ("run", "run, 4 steps") and four["sampling"].endswith("4 steps")
    assert four["calls"] - one["calls"] >= 3 and one["return_mean"] is None
    assert one["quality"]["sliced_wasserstein"] > 0 and one["latency_ms"][0] <= one["latency_ms"][1]
    assert one["frontier"] or four["frontier"]
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_the_return_of_a_policy_is_measured_and_why_it_has_no_quality(hopper_run: Path) -> None:
    found = pareto([Point.of(str(hopper_run))], ParetoConfig(episodes=2, decisions=1), progress=False)
    [point] = found["points"]
    assert point["return_mean"] is not None and point["quality"] is None and point["frontier"]
    assert found["worth"] == "return" and found["left_out"]["quality"] == "run plans no trajectories"


def test_planners_without_an_environment_are_compared_by_their_quality(small_run: Path) -> None:
    """That the data name no environment ended the command after all qualities were measured."""
    run = load(small_run)
    point = Point(replace(run, data=replace(run.data, env=None)))
    found = pareto([point], ParetoConfig(episodes=2, num=16, decisions=1), progress=False)
    assert found["worth"].startswith("minus sliced") and found["points"][0]["frontier"]
    assert "do not say which environment" in found["left_out"]["return"]


def test_runs_whose_folders_have_the_same_name_are_told_apart_by_their_paths(hopper_run: Path, tmp_path: Path) -> None:
    """The runs of a sweep all lie in folders named run; and of two runs without a quality only the last was named."""
    copies = [shutil.copytree(hopper_run, tmp_path / name / "run") for name in ("seed-0", "seed-1")]
    found = pareto([Point.of(str(copy)) for copy in copies], ParetoConfig(episodes=1, decisions=1), progress=False)
    assert [point["name"] for point in found["points"]] == [str(copy) for copy in copies]
    assert found["left_out"]["quality"] == "; ".join(f"{copy} plans no trajectories" for copy in copies)


def test_runs_in_different_environments_are_refused(small_run: Path, hopper_run: Path) -> None:
    with pytest.raises(ValueError, match=r"is a run in PointMaze_UMaze-v3 and .* in Hopper-v5; give runs in the same"):
        pareto([Point.of(str(small_run)), Point.of(str(hopper_run))], ParetoConfig(), progress=False)


def test_no_steps_are_refused_and_a_folder_may_have_an_at_sign(small_run: Path, tmp_path: Path) -> None:
    """RUN@0 was measured with the run's own steps."""
    with pytest.raises(ValueError, match=r"@0 has 0 sampling steps; give at least 1"):
        Point.of(f"{small_run}@0")
    there = shutil.copytree(small_run, tmp_path / "run@4")
    assert Point.of(str(there)).steps is None and Point.of(f"{there}@2").steps == 2


def test_runs_that_nothing_was_measured_of_are_refused(small_run: Path) -> None:
    with pytest.raises(ValueError, match=r"neither a return nor a quality was measured.*--episodes or --num above 0"):
        pareto([Point.of(str(small_run))], ParetoConfig(episodes=0, num=0, decisions=1), progress=False)
    with pytest.raises(ValueError, match="no run is given"):
        pareto([], ParetoConfig())


def test_the_points_and_the_figure_have_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figure was written over the points."""
    assert gentraj("pareto", "run", "--out", tmp_path / "points.png") == 2
    assert "which is the name of the figure; give a name that ends in .json" in capsys.readouterr().err
