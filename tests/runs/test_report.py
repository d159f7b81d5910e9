"""The page of a run: what it says of the run, and that nothing which cannot be drawn costs the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small import changed

from gentraj.plots.page import show
from gentraj.runs import RunFolder, load, report
from gentraj.runs.model_card import score_rows

SCORES = {"env_id": "Maze-v0", "episodes": 4, "return_mean": 12.5, "return_ci95": [10.0, 15.0], "success_rate": None,
          "first_hit_median": 17.0, "returns": [10.0, 12.0, 13.0, 15.0], "step": 6, "agent": "planner, diffusion",
          "behaviour": {"return_mean": 9.0, "episodes": 50}, "controller": {"return_mean": 14.0}, "random": None}


@pytest.fixture
def run_folder(small_run: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(small_run, tmp_path / "run")
    (folder / "evaluation.json").write_text(json.dumps(SCORES))
    return folder


def acting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns the figures of the run's agent in its environment."""
    monkeypatch.setattr(report, "EPISODES", 1)
    run = load(folder)
    return report.Drawing(run, folder / "figures", 0).acting(str(run.data.env))


def undrawable(_: object) -> None:
    raise KeyError("camera")


def test_a_frame_never_costs_the_page(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that fails in whatever way to be rendered leaves a note, and the paths are drawn."""
    monkeypatch.setattr("gentraj.envs.rendering.film.render_frame", undrawable)
    film, *paths = acting(run_folder, monkeypatch)
    assert film.image is None and film.why_missing.startswith("PointMaze_UMaze-v3 cannot be rendered (KeyError: 'cam")
    assert [picture.title for picture in paths] == ["Plans and executed paths", "Candidates and trust"]
    assert all(picture.image.is_file() for picture in paths)


def test_a_figure_that_fails_leaves_a_note_and_the_others_are_drawn() -> None:
    note, = report.drawn("Loss", lambda: undrawable(None))  # type: ignore[arg-type, return-value]
    assert (note.image, note.why_missing) == (None, "KeyError: 'camera'")


def test_the_page_shows_the_agent_and_the_returns_of_its_episodes(run_folder: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    grey = iter(range(10_000))
    monkeypatch.setattr("gentraj.envs.rendering.film.render_frame",
                        lambda _: np.full((64, 96, 3), next(grey) % 250, np.uint8))
    acting(run_folder, monkeypatch)
    report.Drawing(load(run_folder), run_folder / "figures", 0).scores(SCORES, "")
    with Image.open(run_folder / "figures/episode.gif") as film:
        assert report.FRAMES - 5 < film.n_frames <= report.FRAMES + 1 and film.size == (96, 64)
    with Image.open(run_folder / "figures/returns.png") as histogram:
        assert np.asarray(histogram.convert("L")).min() < 100


def test_the_head_says_how_the_run_was_made_and_what_it_is_to_be_compared_with(run_folder: Path) -> None:
    facts = report.facts(load(run_folder), SCORES)
    begun, = RunFolder(run_folder).starts()
    assert facts["command"] == begun["command"] and facts["device"] == "cpu" and facts["seed"] == 0
    assert facts["gentraj"] == begun["version"] and facts["training time"].endswith(" s")
    assert facts["its 95 % interval"] == "10 to 15"
    assert (facts["return of behaviour"], facts["return of controller"]) == (9.0, 14.0)
    assert "return of random" not in facts


@pytest.mark.parametrize("content", [None, "{}", '{"starts": 3}', '{"starts": [3]}'])
def test_a_run_without_provenance_has_a_page_too(run_folder: Path, content: str | None) -> None:
    (run_folder / RunFolder.PROVENANCE).unlink()
    if content is not None:
        (run_folder / RunFolder.PROVENANCE).write_text(content)
    assert "command" not in report.facts(load(run_folder), {})


@pytest.mark.parametrize(("seconds", "text"), [(11.6, "12 s"), (200, "3 min 20 s"), (18_125, "5 h 2 min")])
def test_training_time_is_readable(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_a_table_has_no_row_of_dashes_and_names_its_units() -> None:
    columns, rows = score_rows(SCORES, ("env_id", "episodes", "step"))
    assert columns == ["measure", "planner, diffusion", "behaviour", "controller"]
    assert rows == [("return (mean of episodes)", 12.5, 9.0, 14.0),
                    ("return (95 % interval of the mean)", [10.0, 15.0], None, None),
                    ("first success (steps, median)", 17.0, None, None)]
    assert all(any(show(cell) != "—" for cell in row[1:]) for row in rows)
    deadline = {"ms": 20.0, "act_ms_p99": 29.2, "acted_by": {"the plan": 600}}
    assert score_rows(SCORES | {"deadline": deadline}, ("env_id", "episodes", "step"))[1][3:] == [
        ("deadline ms", 20.0, None, None), ("deadline act ms p99", 29.2, None, None),
        ("deadline acted by the plan", 600, None, None)]


def test_a_single_entry_is_drawn_over_time(run_folder: Path) -> None:
    run = load(run_folder)
    drawing = report.Drawing(changed(run, data=replace(run.data, goal_dims=(1,))), run_folder / "figures", 0)
    times, x = run.model.spec.times, run.reference.x_BHD[0]
    assert (drawing.plane.x, drawing.plane.y, drawing.plane.alike) == ("environment steps", "observation[1]", False)
    assert np.array_equal(drawing._plane(x, times), np.stack([times, x[:, 1].numpy()], 1))
    assert drawing._goal(torch.tensor([3.5]), 20).tolist() == [20, 3.5]
    assert all(picture.image for picture in [*drawing.samples(), *drawing.denoising()])
    episode = SimpleNamespace(obs=np.zeros((5, 4), np.float32), extras={"goal": np.ones((5, 1), np.float32)})
    played: Any = SimpleNamespace(recorded=[episode])
    assert drawing._paths(played).image


def test_padding_is_not_drawn_as_data(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every window is longer than its episode, its end repeats the last observation."""
    run, shown = load(run_folder), list[np.ndarray]()
    mask = torch.ones_like(run.reference.mask_BHD)
    mask[:, 3:] = False
    short = replace(run.reference, x_BHD=run.reference.x_BHD * mask, mask_BHD=mask)
    monkeypatch.setattr(report.figures, "plot_samples_beside_data", lambda x, data, *_, **__: shown.append(data))
    report.Drawing(changed(run, reference=short), run_folder / "figures", 0).samples()
    whole = run.reference.x_BHD[: report.SAMPLES, 2:3, :2].expand(-1, mask.shape[1] - 2, -1)
    assert np.array_equal(shown[0][:, 2:], whole)


def test_samples_have_the_contexts_of_the_windows_beside_them(run_folder: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """As a planner for returns was trained; without any, it would be another model."""
    run, asked = load(run_folder), list[torch.Tensor]()
    context = run.reference.x_BHD[:, 0, :1] + 1
    sample = run.model.sample

    def sampled(start: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        asked.append(start.context_BC - start.values_BHD[:, 0, :1])
        return sample(replace(start, context_BC=None), *arguments, **options)

    monkeypatch.setattr(run.model, "sample", sampled)
    told = changed(run, reference=replace(run.reference, context_BC=context))
    drawing = report.Drawing(told, run_folder / "figures", 0)
    assert all(picture.image for picture in [*drawing.samples(), *drawing.denoising()])
    assert [len(one) for one in asked] == [report.SAMPLES, 1]
    torch.testing.assert_close(torch.cat(asked), torch.ones(report.SAMPLES + 1, 1))
