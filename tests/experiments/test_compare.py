"""`gentraj compare`: trained runs beside each other, as a user compares them, and the numbers behind it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import gentraj

from gentraj.diffusion import likelihood
from gentraj.experiments import compare as module
from gentraj.experiments.compare import common_name, entrants, folder_and_steps, frontier
from gentraj.experiments.statistics import Estimate
from gentraj.runs import load


@pytest.fixture(scope="module")
def compared(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planner with two numbers of sampling steps."""
    out = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        measure_little(patch)
        assert gentraj("compare", f"{small_run}@1", f"{small_run}@4", small_run, "--episodes", 2, "--num", 16,
                       "--out", out) == 0
    return out


def measure_little(patch: pytest.MonkeyPatch) -> None:
    for name, little in (("SECONDS_TIMED", 0.0), ("DECISIONS", 2), ("LIKELIHOODS", 2)):
        patch.setattr(module, name, little)
    patch.setattr(likelihood, "ODE_STEPS", 2)


def runs_of(out: Path) -> dict[str, Any]:
    """What comparison.json has of the runs, by their labels."""
    return json.loads((out / "comparison.json").read_text())["runs"]


# -- the command


def test_a_planner_is_measured_with_other_steps(compared: Path) -> None:
    one, four, own = runs_of(compared).values()
    for run in (one, four, own):
        [score], [numbers] = run["scores"], run["numbers"]
        assert len(score["scores"]) == 2
        assert numbers.keys() >= {"start.recall", "start and goal.recall", "data.recall", "cpu_ms", "parameters",
                                         "plans_per_second.1", "plans_per_second.64", "train_seconds"}
        assert numbers["train_steps"] == 6
    [one], [four], [own] = (run["numbers"] for run in (one, four, own))
    assert four["calls"] - one["calls"] >= 3
    assert own.keys() - one.keys() == {"log_prob_per_entry"}  # which depends on no steps


def test_the_page_has_scores_measures_and_figures(compared: Path, small_run: Path) -> None:
    page = (compared / "comparison.md").read_text()
    name = small_run.name
    for text in ("## PointMaze_UMaze-v3", f"above {name}@1", "recall (share)", "nats per entry",
                 f"|  | {name}@1 | {name}@4 | {name} | data |"):
        assert text in page
    assert {path.name for path in (compared / "figures").iterdir()} == {
        "comparison-frontier.png", "comparison-samples.png"}
    assert page.count("](figures/comparison-") == 2


def test_a_policy_without_a_log_is_measured_too(hopper_run: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    measure_little(monkeypatch)
    folder = shutil.copytree(hopper_run, tmp_path / "policy")
    (folder / "metrics.jsonl").unlink()
    assert gentraj("compare", folder, "--episodes", 0, "--out", tmp_path / "out") == 0
    [policy] = runs_of(tmp_path / "out").values()
    assert policy["scores"] is None
    assert policy["numbers"][0].keys() == {"calls", "cpu_ms", "parameters", "train_steps"}


@pytest.mark.parametrize(("words", "message"), [
    (("nowhere",), "nowhere: no run there"), (("iql",), "iql is a preset"),
    (("nowhere@0",), "nowhere@0 has 0 sampling steps"),
    (("RUN", "RUN"), "was given twice"), (("RUN", "--num", 3), "--num is 3; at least 8 is expected"),
    (("RUN", "POLICY"), "the runs have different environments")])
def test_bad_input_is_one_line(words: tuple, message: str, small_run: Path, hopper_run: Path, tmp_path: Path,
                               capsys: pytest.CaptureFixture) -> None:
    given = [{"RUN": small_run, "POLICY": hopper_run}.get(word, word) for word in words]
    assert gentraj("compare", *given, "--out", tmp_path / "out") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


# -- what it is made of


def test_runs_are_compared_from_python_in_the_same_episodes(hopper_run: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(hopper_run, tmp_path / "twin")
    table = module.compare(load(hopper_run), twin, env="Hopper-v5", episodes=3, progress=False)
    assert {row.label for row in table.rows} == {hopper_run.name, "twin"}
    one, two = (row.results["Hopper-v5"].by_seed for row in table.rows)
    assert one == two and f"above {hopper_run.name}" in str(table)
    with pytest.raises(ValueError, match="no runs"):
        module.compare()
    nothing: Any = 3
    with pytest.raises(TypeError, match="int was given"):
        module.compare(nothing)


def test_runs_that_differ_in_their_seed_only_share_a_row(hopper_run: Path, tmp_path: Path) -> None:
    names = "iql-seed-10", "iql-seed-11", "other", "twin"
    runs = [load(shutil.copytree(hopper_run, tmp_path / name)) for name in names]
    for run, changes in ((runs[1], {"seed": 11}), (runs[2], {"seed": 12, "warmup": 3})):
        run.config = replace(run.config, training=replace(run.config.training, **changes))
    assert [(each.label, each.runs) for each in entrants(runs)] == [
        ("iql", (runs[0], runs[1])), ("other", (runs[2],)), ("twin", (runs[3],))]
    table = module.compare(runs, env="Hopper-v5", episodes=2, progress=False)
    seeds = {row.label: len(row.results["Hopper-v5"].seeds) for row in table.rows}
    assert seeds == {"iql": 2, "other": 1, "twin": 1}


@pytest.mark.parametrize(("names", "common"), [
    (("family=gan-seed-0-1a/run", "family=gan-seed-1-33/run"), "family=gan"), (("iql-0", "iql-1"), "iql"),
    (("one", "two"), "one"), (("iql-0",), "iql-0")])
def test_repetitions_are_called_what_their_names_have_in_common(names: tuple[str, ...], common: str) -> None:
    assert common_name(names) == common


def test_a_point_is_on_the_frontier_unless_another_one_is_as_cheap_and_worth_as_much() -> None:
    costs_and_worths = ((1.0, 5.0), (2.0, 7.0), (2.0, 6.0), (3.0, 7.0), (3.0, 9.0), (1.0, 5.0))
    points = {str(i): (cost, Estimate(0.0, worth, 9.0)) for i, (cost, worth) in enumerate(costs_and_worths)}
    assert frontier(points) == {"0", "1", "4", "5"}


def test_a_folder_may_have_an_at_sign(small_run: Path, tmp_path: Path) -> None:
    there = str(shutil.copytree(small_run, tmp_path / "run@4"))
    assert folder_and_steps(there) == (there, None) and folder_and_steps(f"{there}@2") == (there, 2)
    assert [each.label for each in entrants([there, f"{there}@2", small_run])] == ["run@4", "run@4@2", small_run.name]
