"""`gentraj sweep`: which settings are tried, what is refused before any work, and a sorted table that is continued."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small
from inline import inline
from small import gentraj

from gentraj.cli.sweep import SweepOptions, sweep_of
from gentraj.experiments.sweep import BASE, Choice, Range, SearchConfig, Space, Trial, Values
from gentraj.runs.presets import PRESETS

SMALL = ("--seeds", 0, 1, "--episodes", 2, "--steps", 1)
SPACE: Space = {"a": Choice(("x", "y")), "b": Range(1e-4, 1e-1, log=True), "c": Range(1, 9, whole=True)}


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return inline(monkeypatch)


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "sweep.json").read_text())["rows"]


def played(config: SearchConfig, space: Space = SPACE) -> list[list[Values]]:
    """The rounds of a search whose results are best at b = 0.01 and c = 4; every third trial fails."""
    rounds, found = config.rounds(space), list[list[Values]]()
    try:
        asked = next(rounds)
        while True:
            found.append(asked)
            results = [-abs(np.log10(one["b"]) + 2) - abs(one["c"] - 4) for one in asked]
            asked = rounds.send([None if i % 3 == 2 else result for i, result in enumerate(results)])
    except StopIteration:
        return found


def test_a_grid_is_the_product_of_all_values() -> None:
    space = {"a": Choice((1, 2)), "b": Choice(("x", None, [3]))}
    [trials] = SearchConfig().rounds(space)
    assert trials == [{"a": a, "b": b} for a in (1, 2) for b in ("x", None, [3])]


def test_random_trials_are_a_function_of_their_number() -> None:
    [few], [many] = played(SearchConfig("random", 5)), played(SearchConfig("random", 300))
    assert many[:5] == few and played(SearchConfig("random", 5, search_seed=1)) != [few]
    assert {one["a"] for one in many} == {"x", "y"} and {one["c"] for one in many} == set(range(1, 10))
    logs = np.log10([one["b"] for one in many])  # uniform from -4 to -1: the mean and its standard error
    assert abs(logs.mean() + 2.5) < 4 * 3 / np.sqrt(12 * 300) and logs.min() >= -4 and logs.max() <= -1


@pytest.mark.parametrize("search", ["tpe", "gp"])
def test_a_searcher_of_optuna_asks_by_rounds_and_repeats_itself(search: Any) -> None:
    pytest.importorskip("optuna")
    config = SearchConfig(search, 11, round=4)
    found = played(config)
    assert [len(asked) for asked in found] == [4, 4, 3] and found == played(config)
    for one in (each for asked in found for each in asked):
        assert one["a"] in ("x", "y") and 1e-4 <= one["b"] <= 1e-1 and one["c"] in range(1, 10)


def test_a_missing_optuna_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gentraj.experiments.sweep.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"--search tpe needs Optuna, .*pip install 'gentraj\[scale\]'"):
        SearchConfig("tpe", 3).rounds(SPACE)


def test_a_sweep_is_sorted_and_continued(hopper_file: Path, tmp_path: Path, done: list[str],
                                         capsys: pytest.CaptureFixture[str]) -> None:
    words = "sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path, *SMALL, "--over"
    assert gentraj(*words, "policy.beta=1,3") == 0
    out = capsys.readouterr().out
    assert len(done) == 4 and all(outcome.startswith("return_mean ") for outcome in done)
    table = rows(tmp_path)
    assert {row["values"]["policy.beta"] for row in table} == {1, 3}
    assert table[0]["mean"] >= table[1]["mean"] and all(row["seeds"] == 2 for row in table)
    assert out.strip() in (tmp_path / "sweep.md").read_text()

    done.clear()
    assert gentraj(*words, "policy.beta=1,3") == 0 and not done
    assert gentraj(*words, "policy.beta=1,3,9", "--minimize") == 0 and len(done) == 2
    means = [row["mean"] for row in rows(tmp_path)]
    assert means == sorted(means) and set(table[0]) == set(rows(tmp_path)[0])


def test_a_number_that_compare_measures_is_an_objective(umaze: object, tmp_path: Path, done: list[str]) -> None:
    words = ("sweep", "pointmaze", "--dataset", "tests/umaze-v0", "--run-dir", tmp_path, "--steps", 1, "--num", 16,
             "--over", "model.network.width=8", "--objective")
    assert gentraj(*words, "quality.measures.start.recall") == 0
    [row] = rows(tmp_path)
    [measured] = tmp_path.glob("seed-0-*/trial-*.json")
    assert row["mean"] == json.loads(measured.read_text())["result"]["measures"]["start"]["recall"]
    done.clear()
    assert gentraj(*words, "quality.measures.start.recal") == 2 and not done  # what is measured is kept



def test_one_setting_at_a_time_stands_beside_the_preset(hopper_file: Path, tmp_path: Path, done: list[str],
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    preset = PRESETS["veteran+"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "veteran+", replace(preset, planner=replace(preset.planner, replan=2, steps=1)))
        assert gentraj("sweep", "veteran+", "--dataset", hopper_file, "--run-dir", tmp_path, "--seeds", 0, "--steps", 2,
                       "--episodes", 2, "--over", "planner.candidates=1", "horizon=3", "--one-at-a-time") == 0
    assert [len(line.split(", ")) for line in done] == [2, 1]  # how it plans is no other training
    found = {next(iter(row["values"]), BASE): row for row in rows(tmp_path)}
    base = found.pop(BASE)
    assert found.keys() == {"planner.candidates", "horizon"} and base["above_base"] is None
    for row in found.values():
        low, high = row["above_base_interval"]
        assert row["above_base"] == pytest.approx(row["mean"] - base["mean"]) and low <= row["above_base"] <= high
    page = (tmp_path / "sweep.md").read_text()
    assert "| planner.candidates | 1 | " in page and capsys.readouterr().out.strip() in page


def test_the_interval_of_a_difference_is_paired() -> None:
    """Episodes differ far more than the change does; the same episodes tell it apart."""
    scores = np.random.default_rng(0).normal(0, 100, (2, 20))
    base, change, less = (trial(each) for each in (scores, scores + 1, scores[:1]))
    found = change.result(base)
    assert found.above_base_interval == pytest.approx((1, 1)) and found.interval is not None
    assert found.mean is not None and found.interval[0] < found.mean - 5
    assert less.result(base).mean is None and base.result(base).above_base is None


def trial(scores: np.ndarray) -> Trial:
    """A trial whose seeds have these scores; a third seed is not done if there are fewer than two."""
    objective: Any = SimpleNamespace(value=lambda task: task.scores)
    tasks: Any = [SimpleNamespace(is_done=True, run="", scores=each.tolist()) for each in scores]
    return Trial({}, [*tasks, *[SimpleNamespace(is_done=False, run="")] * (2 - len(scores))], objective)


@pytest.mark.parametrize(("over", "message"), [
    (("policy.bta=1",), "--over: iql has no setting 'policy.bta'; did you mean policy.beta"),
    (("policy.beta=1..3",), "--over policy.beta is a range, which a grid cannot cover"),
    (("policy.beta=1", "policy.beta=2"), "--over gives policy.beta twice"),
    (("policy.beta=1,1",), "--over policy.beta has 1 twice"),
    (("policy.beta=-1",), "beta is -1"),
    (("policy.beta",), "--over is 'policy.beta'; KEY=V1,V2 is expected"),
    (("network=dits",), "unknown network 'dits'"),
    (("training.seed=1,2",), "settings hold training.seed"),
    (("policy.model.batch_size=32",), "iql has no setting 'policy.model.batch_size'"),
    ((), "--over names no setting"),
])
def test_what_cannot_be_tried_is_refused_in_one_line(over: tuple[str, ...], message: str, hopper_file: Path,
                                                    tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path / "runs", "--over", *over
    assert gentraj(*words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("words", "message"), [
    (("--search", "tpe"), "--search is tpe, which goes on without end; give --trials"),
    (("--trials", 3), "--trials is 3, and a grid tries all combinations; leave it out, or give another --search"),
    (("--objective", "qality"), "unknown objective 'qality'; .*did you mean 'quality'"),
    (("--jobs", 0), "--jobs is 0; give at least 1"),
    (("--one-at-a-time", "--search", "random", "--trials", 3), "--one-at-a-time is set, and --search is random"),
    (("--search-seed", 3), "--search-seed is 3, and a grid draws nothing; leave it out"),
    (("--search", "random", "--trials", 2, "--round", 3), "--round is 3, and only tpe and gp search in rounds"),
    (("--num", 64), "--num is for an objective that measures samples, and --objective is return_mean"),
    (("--objective", "likelihood.log_prob_per_entry", "--episodes", 9), "--episodes is for an objective that is a"),
    (("--objective", "control.return_mean", "--protocol", "ogbench"), "--protocol is for an objective that is a score"),
])
def test_options_that_contradict_each_other(words: tuple[Any, ...], message: str, hopper_file: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert gentraj("sweep", "iql", "--dataset", hopper_file, "--over", "policy.beta=1", *words) == 2
    assert re.search(message, capsys.readouterr().err)


def test_data_that_are_not_stitched_have_windows_of_their_own(umaze, tmp_path: Path) -> None:
    """A sweep over `stitch` measured the ways of one in the windows of the other."""
    sweep = sweep_of(SweepOptions("pointmaze", (("stitch=True,False",),), dataset=small.DATASET, run_dir=tmp_path))
    config = small.config()
    one, other, same = (sweep._group(replace(config, stitch=stitch)) for stitch in (True, False, True))
    assert one is same and one.folder != other.folder


def test_ranges_are_of_whole_numbers_where_the_setting_is(hopper_file: Path) -> None:
    over = (("policy.beta=1..3", "policy.batch_size=8..64:log"),)
    sweep = sweep_of(SweepOptions("iql", over, SearchConfig("random", 2), dataset=str(hopper_file)))
    assert sweep.space == {"policy.beta": Range(1.0, 3.0), "policy.batch_size": Range(8, 64, log=True, whole=True)}
    with pytest.raises(ValueError, match=r"batch_size is 1\.5"):
        sweep_of(SweepOptions("iql", (("policy.batch_size=1.5..3",),), SearchConfig("random", 2),
                              dataset=str(hopper_file)))



def test_a_part_is_changed_as_a_whole(hopper_file: Path) -> None:
    """`family` and `network` are what --family and --network of `gentraj train` are; Diffuser's critic of noisy plans
    becomes one of clean plans where nothing is denoised."""
    def changed(preset: str, key: str, value: str) -> dict[str, Any]:
        sweep = sweep_of(SweepOptions(preset, ((f"{key}={value}",),), dataset=str(hopper_file)))
        return sweep.card({key: value}).settings

    assert changed("veteran", "network", "dit")["model"]["network"].keys() >= {"heads"}
    gan = changed("diffuser", "family", "gan")
    assert "objective" in gan["model"] and gan["critic"]["noise_fraction"] == 0.0
