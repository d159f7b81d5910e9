"""The page that `gentraj reproduce --table` writes: a function of the results alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from small import gentraj
from test_reproduce import CARD, FAIR, write

from gentraj.config import ConfigError, from_json
from gentraj.envs.making import environment_factory
from gentraj.experiments import page as page_of_results
from gentraj.experiments import statistics
from gentraj.experiments.cards import (
    Card,
    CardResult,
    DataResult,
    SeedResult,
    read_card,
    read_results,
    write_result,
)
from gentraj.experiments.engine import episode_scores
from gentraj.experiments.page import MARK, score_tables, write_page

ROOT = Path(__file__).parents[2]


def made(scores: dict[str, float], label: str, **changes: object) -> CardResult:
    """A result of scores around those."""
    card = from_json(Card, CARD | {"label": label, "score": "score_d4rl"} | changes)
    seeds = {name: [SeedResult(seed, "", 4, "", (mean - 2 - seed, mean + 2 + seed), 60.0, {})
                    for seed in card.seeds] for name, mean in scores.items()}
    return CardResult(card, {name: DataResult("", 30.0, tuple(found)) for name, found in seeds.items()})


def test_the_page_has_the_best_first_and_a_gap_where_nothing_is_known(tmp_path: Path) -> None:
    for name, result in {"a": made({"fair": 40, "hard": 20}, "Worse"), "c": made({"fair": 99}, "Half"),
                         "b": made({"fair": 50, "hard": 60}, "Better")}.items():
        write_result(tmp_path / "results" / f"{name}.json", result)
    page = tmp_path / "docs" / "results.md"
    assert gentraj("reproduce", "--results", tmp_path / "results", "--table", page) == 0
    text = page.read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = cells[: cells.index(["", "IQM", "above the next row", "probability of improvement"])]
    assert [row[0] for row in table[2:]] == ["the data", "Better", "Worse", "Half"]
    assert table[2] == ["the data", "30.0", "30.0", "30.0"] and table[5][2:] == ["—", "—"]
    assert [row[3].split(" ± ")[0] for row in table[3:5]] == ["55.0", "30.0"]
    assert "![Small ones](figures/results-small-ones.png)" in text
    assert "2 episodes for each of the training seeds 3, 5." in text
    assert (page.parent / "figures" / "results-small-ones.png").is_file()
    before = page.read_bytes()
    assert gentraj("reproduce", "--results", tmp_path / "results", "--table", page) == 0 and page.read_bytes() == before


def test_a_card_may_have_more_seeds_than_the_others_of_its_table(tmp_path: Path) -> None:
    """Each is held to its own seeds, whichever card comes first."""
    more = made({"fair": 50, "hard": 30}, "more", seeds=[3, 5, 8])
    half = CardResult(more.card, {name: DataResult("", 30.0, found.seeds[:2]) for name, found in more.data.items()})
    fewer = {name: made({"fair": 40, "hard": 20}, name) for name in "ab"}
    for cards, noted in (({"m": more} | fewer, False), (fewer | {"m": more}, False), (fewer | {"m": half}, True)):
        text = write_page(cards, tmp_path / "page.md").read_text()
        assert "training seeds 3, 5 (of more: 3, 5, 8)." in text
        assert [line.startswith("| more") for line in text.splitlines() if "(2 of 3 seeds)" in line] == [True] * noted


def test_the_page_says_which_episodes_they_are_where_it_is_not_those_of_every_evaluation(tmp_path: Path) -> None:
    page = write_page({"a": made({"fair": 40}, "a", episode_seed=7)}, tmp_path / "page.md")
    assert "2 episodes (`--seed 7` of `gentraj evaluate`) for each" in page.read_text()


def test_results_that_were_put_together_by_hand_have_each_seed_once(tmp_path: Path) -> None:
    """Twice the same seed would narrow the intervals, and a seed without scores would make them nan."""
    write_result(path := tmp_path / "a.json", made({"fair": 40}, "a"))
    result = json.loads(path.read_text())
    seeds = result["data"]["fair"]["seeds"]
    for wrong, message in (([*seeds, seeds[0]], r"a.json: data.fair: seeds are \[3, 5, 3\]; the results of each are"),
                           ([seeds[0] | {"scores": []}], r"a.json: data.fair.seeds\[0\].scores is")):
        path.write_text(json.dumps(result | {"data": {"fair": result["data"]["fair"] | {"seeds": wrong}}}))
        with pytest.raises(ConfigError, match=message):
            read_results(tmp_path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"episodes": 9}, "the card b has episodes 9, and another of the table 'Small ones' 2; give it a table of its own"),
    ({"episode_seed": 7}, "the card b has episode_seed 7, and another of the table 'Small ones' 0; give it a table"),
    ({}, "two cards of the table 'Small ones' are called 'BC' and have")])
def test_cards_that_cannot_share_a_table_are_refused_before_any_work(changes: dict, message: str, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture) -> None:
    cards = write(tmp_path, "a"), write(tmp_path, "b", **changes)
    words = "--out", tmp_path / "out", "--table", tmp_path / "page.md"
    assert gentraj("reproduce", *cards, *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_rows_of_one_column_have_learned_from_the_same_data() -> None:
    """A name of a dataset is no hash, and another file may lie in another folder."""
    one, other = (made({"fair": 40}, name) for name in "ab")
    other = CardResult(other.card, {"fair": replace(other.data["fair"], sha256="another")})
    with pytest.raises(ValueError, match="the card b has learned from other data called fair"):
        score_tables({"a": one, "b": other})


def test_the_project_s_own_page_says_what_was_recorded_and_the_readme_what_the_page_says(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are left out, as they are resampled."""
    def means(page: str) -> list[str]:
        return [re.sub(r" ± [\d.]+| \[[^]]*\]", "", line) for line in page.splitlines()]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(statistics, "RESAMPLES", 50)
    monkeypatch.setattr(page_of_results, "plot_intervals", lambda *_: None)
    assert gentraj("reproduce", "--results", ROOT / "benchmarks" / "results", "--table", "docs/results.md") == 0
    made, page = (means((folder / "docs" / "results.md").read_text()) for folder in (tmp_path, ROOT))
    assert made == page
    readme = [line.replace("behaviour cloning by diffusion", "BC, diffusion")
              for line in (ROOT / "README.md").read_text().partition("| | hopper-medium |")[2].splitlines()[2:]]
    rows = readme[: readme.index("")]
    assert len(rows) > 5 and set(rows) <= set((ROOT / "docs" / "results.md").read_text().splitlines())



def test_scores_of_successes_have_an_exact_interval_where_all_succeed_or_none_does(tmp_path: Path) -> None:
    """That of as many independent episodes (Clopper and Pearson 1934): 0.025 ** (1 / 8) of 8 successes."""
    seeds = tuple(SeedResult(seed, "", 4, "", (1.0,) * 4, 60.0, {}) for seed in (3, 5))
    half = tuple(replace(seed, scores=(1.0, 1.0, 0.0, 0.0)) for seed in seeds)
    card = from_json(Card, CARD | {"score": "success_rate"})
    data = {"fair": DataResult("", None, seeds), "hard": DataResult("", None, half)}
    text = write_page({"a": CardResult(card, data)}, tmp_path / "page.md").read_text()
    fair, hard, average = table(text, "fair")["BC"]
    assert fair == f"1.00 [{0.025 ** (1 / 8):.3f}, 1.000]" and "±" in hard and "±" in average


def test_a_table_says_what_may_be_compared_with_it_and_which_rows_were_chosen_by_it(tmp_path: Path) -> None:
    league = "goals: whole observations; data: of OGBench"
    cards = {"a": made({"fair": 40}, "Theirs", league=league), "b": made({"fair": 50}, "Ours", league=league),
             "c": made({"fair": 60}, "Tuned", chosen="width by seed 3", seen=True),
             "d": made({"fair": 55}, "Fresh", chosen="width by seed 9")}
    text = write_page(cards, tmp_path / "page.md").read_text()
    lines = text.splitlines()
    assert f"- Theirs and Ours: {league}" in lines
    assert "- Tuned: width by seed 3" in lines and "- Fresh: width by seed 9" in lines
    assert [line.split(" | ")[0] for line in lines if MARK in line] == ["| Tuned †", page_of_results.SEEN]
    with pytest.raises(ConfigError, match="league is"):
        made({"fair": 40}, "a", league="two\nlines")


def test_each_score_of_ours_on_ogbench_says_what_it_may_be_compared_with() -> None:
    """Its goals or rewards, its data and its protocol, in the cards and in their results."""
    folder = ROOT / "benchmarks"
    cards = [*map(read_card, folder.glob("cards/*.json")),
             *(result.card for part in ("", "chunks") for result in read_results(folder / "results" / part).values())]
    leagues = [card.league or "none" for card in cards if any("ogbench" in data.dataset for data in card.data)]
    assert len(leagues) > 20
    for part in ("(goals|rewards) are ", "data are .*steps", "the protocol is .*episodes"):
        assert [league for league in leagues if not re.search(part, league)] == []


def test_raw_returns_of_several_datasets_have_no_average(tmp_path: Path) -> None:
    """A Hopper returns 3,000 and an InvertedPendulum 1,000; the normalised scores of the other tests are averaged."""
    cards = {name: made({"fair": mean, "hard": 10 * mean}, name, score="return_mean") for name, mean in
             (("a", 40), ("b", 50))}
    text = write_page(cards, tmp_path / "page.md").read_text()
    assert "|  | fair | hard |\n" in text and "are not averaged" in text and "### Over runs" not in text


# -- beside means: robust summaries, published scores


def table(text: str, column: str) -> dict[str, list[str]]:
    """The rows of the table of a page that has this column, by their label."""
    rows: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"]
        if cells and column in cells[0]:
            rows |= {row[0]: row[1:] for row in cells[2:]}
    return rows


def test_rows_with_several_runs_are_compared_over_runs_and_datasets(tmp_path: Path) -> None:
    """Each dataset's runs have the same score in `made`, so that each probability is 0, 0.5 or 1, and uncertain."""
    cards = {"a": made({"fair": 50, "hard": 60}, "Better"), "b": made({"fair": 50, "hard": 20}, "Worse"),
             "c": made({"fair": 99}, "Half"), "d": made({"fair": 50, "hard": 40}, "Single", seeds=[3])}
    rows = table(write_page(cards, tmp_path / "page.md").read_text(), "IQM")
    assert list(rows) == ["Better", "Worse"] and rows["Worse"][1:] == ["—", "—"]
    assert rows["Better"] == ["55.0 [55.0, 55.0]", "20.0 [20.0, 20.0]", "0.75 [0.23, 0.97]"]
    assert "### Over runs" not in write_page({key: cards[key] for key in "acd"}, tmp_path / "page.md").read_text()


def test_published_scores_of_what_was_trained_stand_with_their_budget(tmp_path: Path) -> None:
    published = {"score": 87.0, "updates": 1_000_000, "source": "the paper, table 1"}
    result = made({"fair": 40}, "IQL", data=[FAIR | {"published": published}])
    text = write_page({"a": result}, tmp_path / "page.md").read_text()
    assert "| IQL | fair | 87.0 | 1,000,000 |" in text.splitlines()
    assert "- IQL: the paper, table 1" in text.splitlines()


def test_successes_keep_the_order_of_their_episodes() -> None:
    """Otherwise the difference of two agents could not be paired by episode."""
    factory = environment_factory("PointMaze_UMaze-v3")
    assert episode_scores("success_rate", [3.0, 0.0, 1.0], [True, False, True], factory) == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="no success rate"):
        episode_scores("success_rate", [3.0], None, factory)
