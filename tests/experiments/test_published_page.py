"""The page of the best published numbers: each has a source, and stands in the column of its league."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_reproduce import CARD

from benchmarks.published import Args, Published, main, page
from gentraj.config import ConfigError, from_json
from gentraj.experiments.cards import Card, CardResult, DataResult, SeedResult

ROOT = Path(__file__).parents[2]
SOURCE = {"text": "the paper, table 1", "protocol": "the benchmark's", "data": "1 M steps", "seen": "its table"}
NUMBER = {"score": 90.0, "method": "HIQL", "source": "paper"}


def published(*numbers: dict[str, Any], ours: dict[str, str] | None = None, **paper: str) -> Published:
    """A table of one task with these numbers, of a source of the benchmark's league and one of another."""
    row = {"task": "maze", "published": list(numbers), "ours": ours}
    return from_json(Published, {"sources": {"paper": SOURCE | paper, "easier": SOURCE | {"other_league": True}},
                                 "tables": [{"name": "Mazes", "about": "Success in %.", "rows": [row]}]}, "numbers")


def cells(numbers: Published, results: dict[str, CardResult] | None = None) -> list[str]:
    """The cells of the task."""
    lines = "\n".join(page(numbers, results or {})).splitlines()
    return next(line for line in lines if line.startswith("| maze |")).strip("| ").split(" | ")[1:]


@pytest.mark.parametrize(("change", "message"), [
    ({"source": "hearsay"}, "source of maze"), ({"source": ""}, "source"), ({"method": ""}, "method")])
def test_a_number_without_a_source_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"numbers.*{message}"):
        published(NUMBER | change)
    with pytest.raises(ConfigError, match="source"):
        published({key: NUMBER[key] for key in ("score", "method")})


@pytest.mark.parametrize("key", ["text", "protocol", "data"])
def test_a_source_that_does_not_say_what_it_is_and_of_which_league_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"numbers.*{key}"):
        published(NUMBER, **{key: ""})


def test_the_best_of_each_league_stands_in_its_own_column() -> None:
    numbers = published(NUMBER, NUMBER | {"score": 95, "method": "GAS"}, NUMBER | {"score": 100, "source": "easier"})
    assert cells(numbers) == ["95, GAS [1](#sources)", "100, HIQL [2](#sources)", "none"]
    assert cells(published(NUMBER | {"source": "easier"}))[0] == "none"


def test_ours_are_those_of_a_card_and_not_measured_where_it_has_none() -> None:
    seed = SeedResult(3, "", 4, "", (1.0,) * 40, 60.0, {})
    card = from_json(Card, CARD | {"score": "success_rate", "league": "data: ours", "seen": True})
    results = {"bc": CardResult(card, {"fair": DataResult("", None, (seed,))})}
    assert cells(published(ours={"card": "bc", "data": "fair"}), results)[2] == "100 [91.2, 100], BC †, 1 training"
    assert cells(published(ours={"card": "bc", "data": "hard"}), results)[2] == "not measured"
    assert "- BC (`bc`): data: ours" in "\n".join(page(published(ours={"card": "bc", "data": "fair"}), results))
    with pytest.raises(ValueError, match="card with results"):
        cells(published(ours={"card": "gone", "data": "fair"}), results)


def test_the_project_s_own_page_says_what_is_published_and_recorded(tmp_path: Path) -> None:
    main(Args(ROOT / "benchmarks" / "published.json", ROOT / "benchmarks" / "results", tmp_path / "published.md"))
    assert (tmp_path / "published.md").read_text() == (ROOT / "docs" / "published.md").read_text()
    known = json.loads((ROOT / "benchmarks" / "published.json").read_text())
    used = {number["source"] for table in known["tables"] for row in table["rows"] for number in row["published"]}
    assert used == known["sources"].keys()
