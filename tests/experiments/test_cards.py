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
    ({"data": [FAIR, FAIR]}, "data are ['fair', 'fair']"), ({"data": [FAIR | {"name": "../x"}]}, "name is '../x'"),
    ({"label": "two\nlines"}, r"label is 'two\nlines'"),
    ({"data": [FAIR | {"tolerance": None}]}, "expected is -1300.0 and tolerance None"),
    ({"data": [FAIR | {"dataset": "none.npz"}]}, "none.npz"),
    ({"protocol": "ogbench"}, "bc: Pendulum-v1: the protocol ogbench"),
    ({"settings": {"training": {"steps": 4, "seed": 3}}}, "settings hold training; datasets, seeds and"),
    ({"score": "score_d4rl"}, "bc: score_d4rl is not defined for Pendulum-v1"),
    ({"score": "success_rate"}, "bc: Pendulum-v1 has neither goals"),
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
    assert score_tables({path.stem: CardResult(read_card(path), {}) for path in paths})
