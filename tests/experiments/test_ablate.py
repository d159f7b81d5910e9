"""`gentraj ablate`: one setting changed at a time, on the same data, seeds and episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline import inline
from small import gentraj

from gentraj.cli.ablate import Ablate, changes
from gentraj.cli.varying import split, values
from gentraj.experiments import ablate
from gentraj.experiments.cards import Card, CardData
from gentraj.experiments.results_tables import number
from gentraj.runs.presets import PRESETS

SMALL = ("--seeds", 0, "--episodes", 2, "--steps", 2)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with what was done; veteran+ decides half as often, in one step."""
    preset = PRESETS["veteran+"]
    planner = replace(preset.planner, replan=2, steps=1)
    monkeypatch.setitem(PRESETS, "veteran+", replace(preset, planner=planner))
    return inline(monkeypatch)


def rows(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "ablation.json").read_text())["rows"]


def test_a_table_of_one_setting_changes(hopper_file: Path, tmp_path: Path, done: list[str],
                                        capsys: pytest.CaptureFixture[str]) -> None:
    words = "ablate", "veteran+", "--dataset", hopper_file, "--run-dir", tmp_path, *SMALL
    assert gentraj(*words, "--vary", "planner.candidates=1,16", "--vary", "horizon=3") == 0
    out = capsys.readouterr()
    assert "planner.candidates is 16 in veteran+ already; left out" in out.err
    assert [len(line.split(", ")) for line in done] == [2, 1]  # how it plans is no other training
    table = rows(tmp_path)
    assert [(row["key"], row["before"], row["value"]) for row in table] == [
        ("base", None, None), ("planner.candidates", 16, 1), ("horizon", 4, 3)]
    base, *others = table
    assert base["difference"] is None
    for row in others:
        assert row["difference"] == pytest.approx(row["mean"] - base["mean"])
        low, high = row["difference_interval"]
        assert low <= row["difference"] <= high
    page = (tmp_path / "ablation.md").read_text()
    assert page.startswith("# veteran+ on") and out.out.strip() in page
    assert "| planner.candidates | 16 | 1 |" in page

    done.clear()
    assert gentraj(*words, "--vary", "planner.candidates=1", "--vary", "planner.candidates=2") == 0
    assert done == [f"return_mean {number(rows(tmp_path)[2]['mean'])}"] and rows(tmp_path)[:2] == table[:2]
    done.clear()
    assert gentraj(*words, "--vary", "planner.candidates=2") == 0 and not done


def test_the_interval_of_a_difference_is_paired() -> None:
    """Episodes differ far more than the change does; the same episodes tell it apart."""
    card: Any = type("Card", (), {"seeds": (0, 1)})()
    base, change = ablate.Change(card), ablate.Change(card, "horizon", 4, 8)
    scores = np.random.default_rng(0).normal(0, 100, (2, 20))
    found = ablate.row(change, base, {base.name: scores.tolist(), change.name: (scores + 1).tolist()})
    assert found["difference_interval"] == pytest.approx([1, 1]) and found["interval"][0] < found["mean"] - 5
    lacks_a_seed = {base.name: scores.tolist(), change.name: scores[:1].tolist()}
    assert ablate.row(change, base, lacks_a_seed)["mean"] is None


def test_what_a_planner_cannot_be_does_not_stop_the_others(hopper_file: Path, tmp_path: Path, done: list[str],
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    """Inverse dynamics that are asked to look further ahead than they were trained to."""
    assert gentraj("ablate", "decision-diffuser", "--dataset", hopper_file, "--run-dir", tmp_path, "--seeds", 0,
                   "--episodes", 1, "--steps", 1, "--vary", "planner.lookahead=99", "--vary", "planner.scale=1.0") == 1
    assert [row["mean"] is None for row in rows(tmp_path)] == [False, True, False]
    assert "planner.lookahead=99 seed 0 failed: " in capsys.readouterr().err
    (log,) = tmp_path.glob("seed-0-*/log.txt")
    assert "lookahead is 99; the inverse dynamics were trained to look" in log.read_text()


@pytest.mark.parametrize(("vary", "message"), [
    ("planner.candidate=4", "veteran has no setting 'planner.candidate'; did you mean planner.candidates"),
    ("xyzzy=4", "gentraj train veteran --help lists them"),
    ("planner.candidates", "--vary is 'planner.candidates'; KEY=V1,V2 is expected"),
    ("planner.candidates=", "KEY=V1,V2 is expected"),
    ("planner.candidates=many", "--vary planner.candidates: planner.candidates is 'many'; int is expected"),
    ("planner.candidates=0", "candidates is 0; a whole number of at least 1|candidates is 0"),
    ("planner.select=best", "planner.select is 'best'; .*'trust', 'value'"),
    ("network=dits", "unknown network 'dits'; .*did you mean 'dit'"),
    ("family=gans", "unknown family 'gans'; .*did you mean 'gan'"),
    ("network=None", "unknown network 'None'; known: "),
    ("network=[1]", "unknown network '.1.'; known: "),
    ("training.seed=1,2", "seeds and evaluations have fields of their own"),
])
def test_bad_keys_and_values_are_refused_in_one_line(vary: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        changes(Ablate("veteran", (vary,), dataset="data.hdf5"))
    assert "\n" not in str(error.value)


def test_what_follows_from_another_family_is_changed_with_it(hopper_file: Path) -> None:
    """Diffuser's critic of noisy plans: where nothing is denoised there are none."""
    base, gan = changes(Ablate("diffuser", ("family=gan",), dataset=str(hopper_file)))
    assert set(gan.card.settings) == {"model", "critic", "normalizer", "batch_size"} and not base.card.settings
    assert gan.card.settings["critic"]["noise_fraction"] == 0.0


def test_bad_presets_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"unknown preset 'veterans'; .*did you mean 'veteran'"):
        changes(Ablate("veterans", ("horizon=3",), dataset="data.hdf5"))
    with pytest.raises(ValueError, match="'veteran' needs --dataset"):
        changes(Ablate("veteran", ("horizon=3",)))


def test_no_jobs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gentraj("ablate", "pointmaze-umaze", "--vary", "horizon=3", "--jobs", 0) == 2
    assert "--jobs is 0; give at least 1" in capsys.readouterr().err


def test_a_missing_file_is_refused_before_anything_is_trained(tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    words = "veteran", "--vary", "horizon=3", "--dataset", "data.hdf5", "--env-id", "Hopper-v5"
    assert gentraj("ablate", *words, "--run-dir", tmp_path / "runs") == 2
    err = capsys.readouterr().err
    assert "--dataset: the data file data.hdf5 is not in the working directory; give its path" in err
    assert not (tmp_path / "runs").exists()


def test_values_are_numbers_words_and_lists() -> None:
    assert split("a.b=1,2", "--vary") == ("a.b", "1,2")
    assert values("1,2.5,None,True,text") == [1, 2.5, None, True, "text"]
    assert values("[1,2],[3]") == [[1, 2], [3]]


def test_a_part_is_changed_as_a_whole() -> None:
    """`family` and `network` are what --model and --network of `gentraj train` are, of a policy too."""
    base, dit, gan = changes(Ablate("pointmaze-umaze", ("network=dit", "family=gan")))
    assert (base.card.data[0].dataset, dit.before, gan.before) == ("gentraj/pointmaze/umaze-v0", "temporalunet",
                                                                   "diffusion")
    assert dit.card.settings["model"]["network"].keys() >= {"heads"} and "objective" in gan.card.settings["model"]
    _, flow = changes(Ablate("iql", ("family=flow",), dataset="data.hdf5"))
    assert flow.card.settings["policy"]["model"]["path"] == "flow"


def test_the_table_counts_the_episodes_of_all_tasks(tmp_path: Path) -> None:
    """It said 3 where OGBench's protocol had played 3 for each of its five goals."""
    data = CardData("data", "cube.npz")
    ablate.write_table(Card("", "t", "base", "iql", {}, (data,), (0,), 3, "ogbench", "return_mean"), [], tmp_path)
    assert "15 episodes each, the same for all; ogbench protocol" in (tmp_path / "ablation.md").read_text()
