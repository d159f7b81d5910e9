"""Cards that cannot be reproduced are refused in one line, before anything is run; those of the project are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import gentraj
from test_reproduce import FAIR, record, reproduce, write

from gentraj.experiments.cards import CardResult, DataResult, SeedResult, read_card, write_result
from gentraj.experiments.page import score_tables


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("changes", "message"), [
    ({"preset": "fqll"}, "unknown preset 'fqll'; did you mean 'fql'?"),
    ({"runs": "b"}, "bc.json: unknown card for runs 'b'; did you mean 'bc'?"),
    ({"data": [FAIR, FAIR]}, "data are ['fair', 'fair']; at least one is expected, and each once"),
    ({"data": [FAIR | {"name": "../x"}]}, "name is '../x'; letters, digits"),
    ({"label": "two\nlines"}, r"table or label is 'two\nlines'; one line of text is expected"),
    ({"data": [FAIR | {"tolerance": None}]}, "expected is -1300.0 and tolerance None; give both, or null for both"),
    ({"data": [FAIR | {"dataset": "none.npz"}]}, "the data file none.npz is not in the working directory, "),
    ({"data": [FAIR | {"env_id": "Pendulam-v1"}]}, "bc: unknown environment 'Pendulam-v1'; did you mean Pendulum-v1"),
    ({"protocol": "ogbench"}, "bc: Pendulum-v1: the protocol ogbench needs one of"),
    ({"seeds": [0, -1]}, "bc.json: seeds[1] is -1"),
    ({"protocol": "d4rl-single-goal", "eval_every": 2}, "eval_every is 2 and protocol d4rl-single-goal"),
    ({"settings": {"training": {"steps": 4, "seed": 3}}}, "settings hold training; datasets, seeds and"),
    ({"settings": {"policy.alpha": 3}}, "policy.alpha"),
    ({"score": "score_d4rl"}, "bc: score_d4rl is not defined for Pendulum-v1 by the protocol random-goal"),
    ({"score": "success_rate"}, "bc: Pendulum-v1 has neither goals with positive rewards nor an info['success']; give"),
    ({"extra": 1}, "bc.json: extra")], ids=str)
def test_a_bad_card_is_refused_in_one_line(changes: dict[str, Any], message: str, data: Path, tmp_path: Path,
                                           capsys: pytest.CaptureFixture) -> None:
    assert reproduce(write(tmp_path, **changes), data, tmp_path / "out") == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "message"), [
    ((), "give cards, or --table FILE"), (("bc.json", "d/bc.json"), "several cards are called bc; each needs a name"),
    (("none.json",), "none.json"),
    (("bc.json", "--out", "."), "bc.json is where its results would be written; give another folder by --results"),
    (("--results", "d", "--table", "page.md"), "d holds no results; gentraj reproduce CARD... writes them")], ids=str)
def test_bad_options_are_refused_in_one_line(words: tuple, message: str, tmp_path: Path,
                                            capsys: pytest.CaptureFixture,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    write(tmp_path)
    assert gentraj("reproduce", *words) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err


def test_a_device_that_is_not_here_is_refused_before_any_training(data: Path, tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture) -> None:
    """Each training was started, and failed."""
    assert reproduce(write(tmp_path), data, tmp_path / "out", "--device", "gpu") == 2
    assert "gentraj: error: device 'gpu' cannot be used here: " in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("log.txt"))


def test_a_card_that_cannot_stand_beside_what_is_there_is_refused_before_it_is_run(
        data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    other = read_card(write(tmp_path, episodes=7))
    results.mkdir()
    seed = SeedResult(3, "", 4, "", (1.0,), 0.0, {})
    write_result(results / "other.json", CardResult(other, {"fair": DataResult("", None, (seed,))}))
    words = "--results", results, "--table", tmp_path / "page.md"
    assert reproduce(write(tmp_path), data, out, *words) == 2
    assert "episodes" in capsys.readouterr().err and not out.exists()


def test_the_cards_of_the_project_are_whole() -> None:
    """Each can be read, and those of a table can stand in it."""
    paths = sorted((Path(__file__).parents[2] / "benchmarks" / "cards").glob("*.json"))
    assert len(paths) > 10 and score_tables({path.stem: CardResult(read_card(path), {}) for path in paths})
