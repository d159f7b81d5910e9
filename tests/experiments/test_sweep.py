"""`gentraj sweep`: which settings are tried, what is refused before any work, and a sorted table that is continued."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from inline import inline
from small import gentraj

from gentraj.config import read_json
from gentraj.experiments import sweep as module
from gentraj.experiments.cards import DataResult, read_results
from gentraj.experiments.pools import LocalProcesses
from gentraj.experiments.reproduce import Cards, place, reproduce
from gentraj.experiments.sweep import BASE, base_card, trials_of, varied_card
from gentraj.randomness import fold, for_choosing
from gentraj.runs.kinds.presets import PRESETS

SMALL = ("--seeds", 0, 1, "--episodes", 2, "--steps", 1)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return inline(monkeypatch)


def rows(folder: Path) -> dict[str, DataResult]:
    """The results of a sweep by their labels."""
    return {found.card.label: found.data["data"] for found in read_results(folder / "results").values()}


def labels(folder: Path) -> list[str]:
    """The first cells of the table of scores, from above."""
    _, table = (folder / "sweep.md").read_text().split("| --- |", 1)
    return re.findall(r"^\| (policy[^|]+) \|", table.partition("\n\n")[0], re.MULTILINE)


def test_a_grid_is_the_product_of_all_values() -> None:
    space = {"a": [1, 2], "b": ["x", None, [3]]}
    assert trials_of(space) == [{"a": a, "b": b} for a in (1, 2) for b in ("x", None, [3])]


def test_a_sweep_is_sorted_and_continued(hopper_file: Path, tmp_path: Path, done: list[str],
                                         capsys: pytest.CaptureFixture[str]) -> None:
    words = "sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path, *SMALL, "--over"
    assert gentraj(*words, "policy.beta=1,3") == 0
    out = capsys.readouterr().out
    assert len(done) == 4 and all(outcome.startswith("return_mean ") for outcome in done)
    first = rows(tmp_path)
    assert first.keys() == {"policy.beta=1", "policy.beta=3"}
    assert all([seed.seed for seed in found.seeds] == [0, 1] for found in first.values())
    assert labels(tmp_path) == sorted(first, key=lambda label: (-first[label].mean, label))
    assert out.strip() in (tmp_path / "sweep.md").read_text()

    done.clear()
    assert gentraj(*words, "policy.beta=1,3") == 0 and not done
    assert gentraj(*words, "policy.beta=1,3,9") == 0 and len(done) == 2
    assert rows(tmp_path).items() >= first.items() and len(labels(tmp_path)) == 3


def test_what_a_sweep_chooses_by_is_not_what_reproduce_reports(hopper_file: Path, tmp_path: Path, done: list[str],
                                                              begun: list[int]) -> None:
    words = "sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path, "--episodes", 2, "--steps", 1, "--over"
    assert gentraj(*words, "policy.candidates=1,2") == 0
    assert begun == 2 * [fold(for_choosing(0), i) for i in range(2)]
    begun.clear()
    card = base_card("iql", str(hopper_file), None, 1, seeds=(0,), episodes=2, protocol="random-goal",
                     score="return_mean")
    for seed in (0, 7):
        made = Cards.of({"iql": replace(card, episode_seed=seed)}, (), partial(place, tmp_path / "reported"))
        failures, _ = reproduce(made, tmp_path / "reported", LocalProcesses(1), "cpu")
        assert not failures and begun == [fold(seed, i) for i in range(2)]
        begun.clear()


def test_one_setting_at_a_time_stands_beside_the_preset(hopper_file: Path, tmp_path: Path, done: list[str]) -> None:
    """The difference is paired: its interval is that of the differences of the same episodes."""
    preset = PRESETS["veteran+"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "veteran+", replace(preset, planner=replace(preset.planner, replan=2, steps=1)))
        assert gentraj("sweep", "veteran+", "--dataset", hopper_file, "--run-dir", tmp_path, "--seeds", 0, "--steps", 2,
                       "--episodes", 2, "--over", "planner.candidates=1", "horizon=3", "--one-at-a-time") == 0
    assert [len(line.split(", ")) for line in done] == [2, 1]  # how it plans is no other training
    found = rows(tmp_path)
    base = found[BASE].mean
    assert found.keys() == {BASE, "planner.candidates=1", "horizon=3"}
    page = (tmp_path / "sweep.md").read_text()
    [line] = [line for line in page.splitlines() if line.startswith("| horizon=3 |") and "[" in line]
    above, low, high = map(float, re.findall(r"-?[\d.]+", line.split(" | ")[2]))
    assert f"above {BASE}" in page and low <= above <= high
    assert above == pytest.approx(found["horizon=3"].mean - base, rel=0.01, abs=0.06)


def test_a_training_lasts_as_many_steps_as_fit_into_its_minutes(
        hopper_file: Path, tmp_path: Path, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACE_STEPS", 4)
    monkeypatch.setattr(module, "PACE_BLOCK", 2)
    words = ("sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path, "--minutes", 0.001, "--episodes", 1,
             "--over", "policy.beta=1,3", "policy.candidates=1,2")
    assert gentraj(*words) == 0 and len(done) == 2
    paces = [read_json(path)["seconds_per_step"] for path in tmp_path.glob("pace-*.json")]
    assert {seed.step for found in rows(tmp_path).values() for seed in found.seeds} == {
        max(1, round(60 * 0.001 / pace)) for pace in paces}
    names = {path.parent.name.rpartition("-")[0] for path in tmp_path.glob("*/run")}
    assert names == {"policy.beta=1-seed-0", "policy.beta=3-seed-0"}
    assert gentraj(*words) == 0 and len(done) == 2


@pytest.mark.parametrize(("over", "message"), [
    (("policy.bta=1",), "policy.bta is unknown; did you mean 'policy.beta'"),
    (("policy.beta=1..3",), "beta is '1..3'"),
    (("policy.beta=1", "policy.beta=2"), "--over gives policy.beta twice"),
    (("policy.beta=-1",), "beta is -1"),
    (("training.seed=1,2",), "settings hold training.seed"),
    (("policy.beta=1", "--steps", 2, "--minutes", 1), "--steps and --minutes"),
    (("training.steps=1,2", "--minutes", 1), "--minutes and --over training.steps"),
])
def test_what_cannot_be_tried_is_refused_in_one_line(over: tuple[Any, ...], message: str, hopper_file: Path,
                                                    tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "sweep", "iql", "--dataset", hopper_file, "--run-dir", tmp_path / "runs", "--over", *over
    assert gentraj(*words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_a_part_is_changed_as_a_whole(hopper_file: Path) -> None:
    """`family` and `network` are what --model and --network of `gentraj train` are; Diffuser's critic of noisy plans
    becomes one of clean plans where nothing is denoised."""
    def changed(preset: str, key: str, value: str) -> dict[str, Any]:
        base = base_card(preset, str(hopper_file), None, None, seeds=(0,), episodes=1, protocol="random-goal",
                         score="return_mean")
        return varied_card(base, {key: value}).settings

    assert changed("veteran", "network", "dit")["model"]["network"].keys() >= {"heads"}
    gan = changed("diffuser", "family", "gan")
    assert "objective" in gan["model"] and gan["critic"]["noise_fraction"] == 0.0
