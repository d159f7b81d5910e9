"""What the page of results shows beside means: robust summaries, published scores, learning curves, rows of d3rlpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from test_results_page import made

from benchmarks.d3rlpy_results import card_result, finished
from gentraj.config import write_json
from gentraj.envs.making import environment_factory
from gentraj.experiments.cards import Published
from gentraj.experiments.reproduce import curve_points, episode_scores
from gentraj.experiments.results import CardResult, CurvePoint, read_results, write_result
from gentraj.experiments.results_extras import curve
from gentraj.experiments.results_page import write_page
from gentraj.experiments.results_tables import families


def table(text: str, column: str) -> dict[str, list[str]]:
    """The rows of the table of a page that has this column, by their label."""
    rows: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"]
        if cells and column in cells[0]:
            rows |= {row[0]: row[1:] for row in cells[2:]}
    return rows


def trained(result: CardResult, steps: tuple[int, ...] = (2, 4, 6, 8)) -> CardResult:
    """The result with a learning curve: step + 10 times the seed at each step."""
    data = {name: replace(found, seeds=tuple(replace(seed, curve=tuple(
        CurvePoint(step, step + 10.0 * seed.seed, (0.0, 1.0)) for step in steps)) for seed in found.seeds))
        for name, found in result.data.items()}
    return CardResult(result.card, data)


def test_rows_are_summarised_over_runs_and_datasets(tmp_path: Path) -> None:
    """The runs of each dataset have the same score in `made`, so that each probability is 0, 0.5 or 1."""
    cards = {"a": made({"fair": 50, "hard": 60}, "Better"), "b": made({"fair": 50, "hard": 20}, "Worse"),
             "c": made({"fair": 99}, "Half")}
    rows = table(write_page(cards, tmp_path / "page.md").read_text(), "IQM")
    assert list(rows) == ["Better", "Worse"] and rows["Worse"][2:] == ["—", "—"]
    assert rows["Better"] == ["55.0", "55.0 [55.0, 55.0]", "20.0 [20.0, 20.0]", "0.75 [0.75, 0.75]"]


def test_a_single_run_has_no_interval_over_runs_and_no_probability_of_improvement(tmp_path: Path) -> None:
    cards = {"a": made({"fair": 50, "hard": 60}, "A", seeds=[3]), "b": made({"fair": 40, "hard": 20}, "B"),
             "c": made({"fair": 30, "hard": 20}, "C")}
    text = write_page(cards, tmp_path / "page.md").read_text()
    rows = table(text, "IQM")
    assert [rows[name][1] for name in "ABC"] == ["55.0", "30.0 [30.0, 30.0]", "25.0 [25.0, 25.0]"]
    assert [rows[name][3] for name in "AB"] == ["—", "0.75 [0.75, 0.75]"] and "[" in rows["A"][2]
    assert "A single run cannot be resampled. Where a row has one on a dataset," in " ".join(text.split())


def test_published_scores_stand_beside_ours_with_their_budget(tmp_path: Path) -> None:
    result = made({"fair": 40, "hard": 20}, "IQL")
    published = Published(87.0, 1_000_000, "the paper, table 1")
    data = tuple(replace(one, published=published) if one.name == "fair" else one for one in result.card.data)
    text = write_page({"a": CardResult(replace(result.card, data=data), result.data)}, tmp_path / "page.md").read_text()
    [cells] = [line.split(" | ") for line in text.splitlines() if "table 1" in line]
    assert [cell.strip("| ") for cell in cells[:2]] == ["IQL", "fair"] and cells[2].startswith("40.0 ± ")
    assert [cell.strip("| ") for cell in cells[3:]] == ["4", "87.0", "1,000,000", "the paper, table 1"]
    assert "### Published scores" in text and "While training" not in text


def test_learning_curves_are_drawn_and_their_last_three_averaged(tmp_path: Path) -> None:
    cards = {"a": trained(made({"fair": 50, "hard": 60}, "A")), "b": made({"fair": 50, "hard": 20}, "B")}
    text = write_page(cards, tmp_path / "page.md").read_text()
    rows = table(text, "mean of the last three evaluations")
    assert rows["A"][1] == f"{np.mean([4, 6, 8]) + 10 * 4:.1f}" and rows["B"][1] == "—"  # of the seeds 3 and 5
    assert "![Small ones, while training](figures/page-small-ones-curves.png)" in text
    height, width, _ = imread(tmp_path / "figures" / "page-small-ones-curves.png").shape
    assert height > 100 and width > 300


def test_a_curve_has_the_steps_of_all_seeds() -> None:
    found = trained(made({"fair": 50}, "A")).data["fair"]
    one, other = found.seeds
    drawn = curve(replace(found, seeds=(one, replace(other, curve=other.curve[1:]))))
    assert drawn is not None and drawn.step.tolist() == [4, 6, 8]
    assert drawn.low.tolist() == [34, 36, 38] and drawn.high.tolist() == [54, 56, 58]
    assert drawn.mean.tolist() == [44, 46, 48] and curve(replace(found, seeds=(one, replace(other, curve=())))) is None


def test_successes_keep_the_order_of_their_episodes() -> None:
    """Otherwise the difference of two agents could not be paired by episode."""
    factory = environment_factory("PointMaze_UMaze-v3")
    assert episode_scores("success_rate", [3.0, 0.0, 1.0], [True, False, True], factory) == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="no success rate"):
        episode_scores("success_rate", [3.0], None, factory)
    rows = [{"step": 1, "return_mean": 2.0}, {"step": 2, "returns": [1.0, 5.0]}]
    assert [(point.step, point.mean) for point in curve_points(rows, "return_mean", factory)] == [(2, 3.0)]


def peer(folder: Path, seed: int, **changes: Any) -> Path:
    """A finished training of d3rlpy, as `benchmarks.d3rlpy_peer` writes it."""
    rows = [{"step": step, "returns": [100.0 * step, 300.0 * step]} for step in (1, 2, 3)]
    result = {"algorithm": "iql", "env_id": "Hopper-v5", "updates": 3, "step": 3, "eval_every": 1, "episodes": 2,
              "seed": seed, "data": ["hopper-medium.hdf5"], "data_sha256": "abc", "train_seconds": 6.0, "curve": rows,
              "versions": {"d3rlpy": "2.8.1"}} | changes
    (folder / str(seed)).mkdir(parents=True)
    write_json(folder / str(seed) / "result.json", result)
    return folder / str(seed)


def test_trainings_of_d3rlpy_are_rows_of_the_same_page(tmp_path: Path) -> None:
    folders = [peer(tmp_path, 1), peer(tmp_path, 0), peer(tmp_path, 2, step=2), tmp_path / "none"]
    [(algorithm, results)] = finished(folders).items()
    assert algorithm == ("iql", 3) and [one["seed"] for one in results] == [1, 0]
    made_of = card_result(results, "Small", {"abc": "hopper"})
    write_result(tmp_path / "results" / "d.json", made_of)
    [found] = read_results(tmp_path / "results").values()
    assert found == made_of and list(found.data) == ["hopper"] and found.card.seeds == (0, 1)
    seed = found.data["hopper"].seeds[0]
    assert seed.last_evaluations == pytest.approx(np.mean([point.mean for point in seed.curve]))
    assert seed.mean == seed.curve[-1].mean == pytest.approx(np.mean(seed.scores))
    [family] = families({"d": found})
    assert family.rows[0].label == "IQL of d3rlpy"
    with pytest.raises(ValueError, match="differ in --episodes or --eval-every"):
        card_result([results[0], results[1] | {"episodes": 9}], "Small", {})
