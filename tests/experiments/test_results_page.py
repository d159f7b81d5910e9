"""The page that `gentraj reproduce --table` writes: a function of the results alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from small import gentraj
from test_reproduce import CARD, FAIR, HARD, write

from gentraj.config import ConfigError, from_json
from gentraj.experiments.cards import Card
from gentraj.experiments.results import CardResult, SeedResult, pooled, read_results, write_result
from gentraj.experiments.results_page import families, write_page

ROOT = Path(__file__).parents[2]


def made(scores: dict[str, float], label: str, **changes: object) -> CardResult:
    """A result of scores around those."""
    card = from_json(Card, CARD | {"label": label, "score": "score_d4rl"} | changes)
    seeds = {name: [SeedResult("", seed, "", 4, "", mean, (mean, mean), (mean - 2 - seed, mean + 2 + seed), 60.0, {})
                    for seed in card.seeds] for name, mean in scores.items()}
    return CardResult(card, {name: pooled("", 30.0, tuple(found)) for name, found in seeds.items()})


def test_the_page_has_the_best_first_and_a_gap_where_nothing_is_known(tmp_path: Path) -> None:
    for name, result in {"a": made({"fair": 40, "hard": 20}, "Worse"), "c": made({"fair": 99}, "Half"),
                         "b": made({"fair": 50, "hard": 60}, "Better")}.items():
        write_result(tmp_path / "results" / f"{name}.json", result)
    page = tmp_path / "docs" / "results.md"
    assert gentraj("reproduce", "--results", tmp_path / "results", "--table", page) == 0
    text = page.read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    table = cells[: cells.index(["", "average", "IQM", "above the next row", "probability of improvement"])]
    assert [row[0] for row in table[2:]] == ["the data", "Better", "Worse", "Half"]
    assert table[2] == ["the data", "30.0", "30.0", "30.0"] and table[5][2:] == ["—", "—"]
    assert [row[3].split(" ± ")[0] for row in table[3:5]] == ["55.0", "30.0"]
    assert "![Small ones](figures/results-small-ones.png)" in text
    assert "training seeds\n(3, 5) with 2 episodes each" in text
    height, width, _ = imread(page.parent / "figures" / "results-small-ones.png").shape
    assert height > 100 and width > 500
    assert "On average, **Better** scores 25.0 more than **Worse**. The 95 % interval" in text and "chance" not in text
    before = page.read_bytes()
    assert gentraj("reproduce", "--results", tmp_path / "results", "--table", page) == 0 and page.read_bytes() == before


def test_the_name_of_a_page_may_have_spaces(tmp_path: Path) -> None:
    """The links of Markdown have none, and neither do the words of a command."""
    path = tmp_path / "my page.md"
    text = write_page({"a": made({"fair": 40, "hard": 20}, "a")}, path).read_text()
    assert "![Small ones](figures/my%20page-small-ones.png)" in text and f"--table '{path.as_posix()}'\n" in text
    assert (tmp_path / "figures" / "my page-small-ones.png").is_file()


def test_a_card_may_have_more_seeds_than_the_others_of_its_table(tmp_path: Path) -> None:
    """Each is held to its own seeds, whichever card comes first."""
    more = made({"fair": 50, "hard": 30}, "more", seeds=[3, 5, 8])
    half = CardResult(more.card, {name: pooled("", 30.0, found.seeds[:2]) for name, found in more.data.items()})
    fewer = {name: made({"fair": 40, "hard": 20}, name) for name in "ab"}
    for cards, noted in (({"m": more} | fewer, False), (fewer | {"m": more}, False), (fewer | {"m": half}, True)):
        text = write_page(cards, tmp_path / "page.md").read_text()
        assert "training seeds\n(3, 5; for more: 3, 5, 8) with 2 episodes each" in text
        assert [line.startswith("| more") for line in text.splitlines() if "(2 of 3 seeds)" in line] == [True] * noted


def test_rows_with_seeds_of_their_own_are_listed_as_a_sentence_lists_them(tmp_path: Path) -> None:
    several = {name: made({"fair": 40}, name, seeds=[3], data=[FAIR]) for name in "xyz"}
    text = write_page({name: made({"fair": 9}, name, data=[FAIR]) for name in "abcd"} | several,
                      tmp_path / "page.md").read_text()
    assert "training seeds\n(3, 5; for x, y and z: 3) with 2 episodes each" in text


def test_the_order_of_a_card_s_seeds_does_not_matter(tmp_path: Path) -> None:
    cards = {"a": made({"fair": 40}, "a", seeds=[5, 3], data=[FAIR]), "b": made({"hard": 20}, "a", data=[HARD]),
             "c": made({"fair": 9}, "c")}
    assert "training seeds\n(3, 5) with 2 episodes each" in write_page(cards, tmp_path / "page.md").read_text()


def test_rows_that_learned_from_other_data_of_one_name_are_named(tmp_path: Path) -> None:
    """A name of a dataset is no hash, and another file may lie in another folder."""
    cards = {name: made({"fair": 40, "hard": 20}, name) for name in "abc"}
    assert "learned from other data" not in write_page(cards, tmp_path / "page.md").read_text()
    data = cards["b"].data
    cards["b"] = CardResult(cards["b"].card, data | {"hard": replace(data["hard"], sha256="another")})
    text = write_page(cards, tmp_path / "page.md").read_text()
    assert "**The data of hard differ**: b learned from other data of that name than the other rows." in text
    assert text.count("learned from other data") == 1


def test_results_that_were_put_together_by_hand_have_each_seed_once(tmp_path: Path) -> None:
    """Twice the same seed would narrow the intervals, and a seed without scores would make them nan."""
    write_result(path := tmp_path / "a.json", made({"fair": 40}, "a"))
    result = json.loads(path.read_text())
    seeds = result["data"]["fair"]["seeds"]
    for wrong, message in (([*seeds, seeds[0]], r"a.json: data.fair: seeds are \[3, 5, 3\]; the results of each are"),
                           ([seeds[0] | {"scores": []}], "a.json: data.fair.seeds.0.: the scores of seed 3 are empty")):
        path.write_text(json.dumps(result | {"data": {"fair": result["data"]["fair"] | {"seeds": wrong}}}))
        with pytest.raises(ConfigError, match=message):
            read_results(tmp_path)


def test_a_lead_of_one_training_says_what_its_interval_lacks(tmp_path: Path) -> None:
    pair = {"a": made({"fair": 90, "hard": 90}, "a"), "b": made({"fair": 40, "hard": 20}, "b")}
    single = {"a": made({"fair": 90, "hard": 90}, "a", seeds=[3]), "b": pair["b"]}
    texts = [write_page(cards, tmp_path / "page.md").read_text() for cards in (pair, single)]
    assert ["one training per method" in text for text in texts] == [False, True]


def test_only_what_is_finished_and_expected_is_judged(tmp_path: Path) -> None:
    """Expected is 50 +- 5 on each dataset: 51 is inside, 60 outside; a dataset that lacks seeds does not count."""
    expected = {"expected": 50.0, "tolerance": 5.0}
    card = from_json(Card, CARD | {"data": [{"name": name, "dataset": "", "env_id": "Pendulum-v1", **expected}
                                            for name in ("near", "far", "half", "none")]})
    found = made({"near": 51, "far": 60, "half": 51}, "BC").data
    found["half"] = pooled("", 30.0, found["half"].seeds[:1])
    write_result(tmp_path / "results" / "a.json", CardResult(card, found))
    assert gentraj("reproduce", "--results", tmp_path / "results", "--table", tmp_path / "page.md") == 0
    [*_, row] = (line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("| BC"))
    assert row.split("|")[-2].strip() == "1 of 2"


def test_the_average_of_datasets_is_narrower_than_each_alone() -> None:
    [family] = families({"a": scattered("A")})
    low, mean, high = family.rows[0].average(family.columns) or (0, 0, 0)
    widths = [found.interval[1] - found.interval[0] for found in family.rows[0].results.values()]
    assert low < mean < high and high - low == pytest.approx(np.sqrt(np.square(widths).sum()) / 2, rel=0.05)


def scattered(label: str) -> CardResult:
    """A result with 20 random scores of each seed."""
    rng, result = np.random.default_rng(0), made({"fair": 40, "hard": 20}, label)
    return CardResult(result.card, {name: pooled("", 30.0, tuple(replace(s, scores=tuple(rng.normal(30.0, 9.0, 20)))
                                                                 for s in one.seeds))
                                    for name, one in result.data.items()})


def test_the_lead_of_one_card_over_the_same_is_none(tmp_path: Path) -> None:
    """With the same seeds and episodes the difference is paired, and certain; with others the variances add up."""
    same = {name: scattered(name) for name in "ab"}
    certain = "this difference, paired by seed and episode, is 0.00 to 0.00, so the lead may be due to chance"
    assert certain in write_page(same, tmp_path / "page.md").read_text()
    found = same | {"b": of_other_seeds(same["b"])}
    [family] = families(found)
    low, _, high = family.rows[0].average(family.columns) or (0, 0, 0)
    [numbers] = re.findall(r"\*\*a\*\* scores (.*) more than \*\*b\*\*. .* is (.*) to (.*), so the lead may be due",
                           write_page(found, tmp_path / "page.md").read_text())
    apart, least, most = map(float, numbers)
    assert apart == 0 and least < 0 < most
    assert most - least == pytest.approx(np.sqrt(2) * (high - low), rel=0.05)


def of_other_seeds(result: CardResult) -> CardResult:
    """The same scores, as if they were of other seeds."""
    data = {name: pooled(one.sha256, one.behaviour, tuple(replace(s, seed=s.seed + 10) for s in one.seeds))
            for name, one in result.data.items()}
    return CardResult(replace(result.card, seeds=tuple(s + 10 for s in result.card.seeds)), data)


@pytest.mark.parametrize(("changes", "message"), [
    ({"episodes": 9}, "the card b has episodes 9, and another of the table 'Small ones' 2; give it a table of its own"),
    ({}, "two cards of the table 'Small ones' are called 'BC' and have fair, hard; give each its own label")])
def test_cards_that_cannot_share_a_table_are_refused_before_any_work(changes: dict, message: str, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture) -> None:
    cards = write(tmp_path, "a"), write(tmp_path, "b", **changes)
    words = "--out", tmp_path / "out", "--table", tmp_path / "page.md"
    assert gentraj("reproduce", *cards, *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_cards_of_one_row_have_the_same_seeds() -> None:
    one, other = made({"fair": 40}, "BC"), made({"hard": 20}, "BC", seeds=[3, 5, 8])
    with pytest.raises(ValueError, match=r"called 'BC' and have seeds \(3, 5\) and \(3, 5, 8\); give them the same"):
        families({"a": one, "b": other})


def test_the_project_s_own_page_says_what_was_recorded_and_the_readme_what_the_page_says(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are left out, as they are resampled."""
    monkeypatch.chdir(tmp_path)
    assert gentraj("reproduce", "--results", ROOT / "benchmarks" / "results", "--table", "docs/results.md") == 0
    made, page = (means((folder / "docs" / "results.md").read_text()) for folder in (tmp_path, ROOT))
    assert made == page
    readme = [line.replace("behaviour cloning by diffusion", "BC, diffusion")
              for line in (ROOT / "README.md").read_text().partition("| | hopper-medium |")[2].splitlines()[2:]]
    rows = readme[: readme.index("")]
    assert len(rows) > 5 and set(rows) <= set((ROOT / "docs" / "results.md").read_text().splitlines())


def means(page: str) -> list[str]:
    """Its lines without what is drawn at random."""
    fixed = [line for line in page.splitlines() if not line.startswith("On average ")]
    return [re.sub(r" ± [\d.]+| \[[^]]*\]", "", line) for line in fixed]


def test_raw_returns_of_several_datasets_have_no_average(tmp_path: Path) -> None:
    """A Hopper returns 3,000 and an InvertedPendulum 1,000; the normalised scores of the other tests are averaged."""
    cards = {name: made({"fair": mean, "hard": 10 * mean}, name, score="return_mean") for name, mean in
             (("a", 40), ("b", 50))}
    text = write_page(cards, tmp_path / "page.md").read_text()
    assert "|  | fair | hard |\n" in text and "There is no average" in text
    assert not any(word in text for word in ('"average"', "On average", "IQM", "rows are sorted"))
    single = {name: made({"fair": 40}, name, score="return_mean", data=[FAIR]) for name in "ab"}
    assert "|  | fair | average |\n" in write_page(single, tmp_path / "page.md").read_text()


def test_tables_of_similar_names_have_figures_of_their_own(tmp_path: Path) -> None:
    names = ("A + B", "a, b", "A B curves", "a-b", "\xe9", "\xe8")
    cards = {str(i): made({"fair": i}, "BC", table=name, data=[FAIR]) for i, name in enumerate(names)}
    text = write_page(cards, tmp_path / "page.md").read_text()
    pictures = re.findall(r"\]\((.*)\)", text)
    assert len(set(pictures)) == len(names) and all((tmp_path / picture).is_file() for picture in pictures)
    assert pictures[0] == "figures/page-a-b.png"


def test_a_success_rate_of_0_is_not_certain(tmp_path: Path) -> None:
    """0 of 2 episodes: the exact (Clopper-Pearson) interval reaches to 0.84."""
    result = made({"fair": 0}, "BC", score="success_rate", data=[FAIR], seeds=[3, 5, 7])
    never = pooled("", None, tuple(replace(seed, scores=(0.0, 0.0), mean=0.0) for seed in result.data["fair"].seeds))
    text = write_page({"a": CardResult(result.card, {"fair": never})}, tmp_path / "page.md").read_text()
    assert "interval of the rate is 0 to 0.842,\nand if each does, it is 0.158 to 1." in text


def test_the_protocol_of_ogbench_has_the_episodes_of_five_tasks(tmp_path: Path) -> None:
    cards = {"a": made({"fair": 1}, "BC", score="success_rate", protocol="ogbench", episodes=50, data=[FAIR])}
    text = write_page(cards, tmp_path / "page.md").read_text()
    assert "(protocol ogbench) of the *last* checkpoint" in text and "with 250 episodes each" in text
