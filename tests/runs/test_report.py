"""The page of a run: what it says of the run, and that nothing which cannot be drawn costs the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageSequence
from small import changed

from gentraj.envs.making import environment_factory
from gentraj.runs import RunFolder, load
from gentraj.runs.show import report
from gentraj.runs.show.card import explanation, score_rows

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


def test_a_figure_that_fails_leaves_a_note_and_the_others_are_drawn(run_folder: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an environment that fails in whatever way to be rendered, an episode is drawn over time, and the paths."""
    def undrawable(_: object) -> None:
        raise KeyError("camera")

    monkeypatch.setattr("gentraj.envs.rendering.render_frame", undrawable)
    film, *paths = acting(run_folder, monkeypatch)
    assert film.image.is_file() and "PointMaze_UMaze-v3 cannot be rendered (KeyError: 'cam" in film.caption
    assert [picture.title for picture in paths] == ["Plans and executed paths", "Candidates and trust"]
    assert all(picture.image.is_file() for picture in paths)
    notes: list[Any] = [*report.drawn("Loss", lambda: undrawable(None))]  # type: ignore[arg-type, return-value]
    assert [(note.image, note.why_missing) for note in notes] == [(None, "KeyError: 'camera'")]


def test_an_episode_is_drawn_over_time_where_nothing_renders(hopper_run: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """What was observed and done, by its names and up to the limits of the actions."""
    shown: dict[str, Any] = {}

    def keep(signals: Any, names: Any, path: Path, title: str, bounds_2D: np.ndarray) -> Path:
        shown.update(executed=signals[0], names=names, bounds=bounds_2D)
        return path

    def unrendered(_: object) -> None:
        raise report.CannotRender("no screen")

    monkeypatch.setattr(report, "plot_signals", keep)
    monkeypatch.setattr(report, "rendering", unrendered)
    run = load(hopper_run)
    data = replace(run.data, obs_names=tuple("abcdefghijk"))
    picture, = report.Drawing(changed(run, data=data), tmp_path, 0).acting(str(data.env))
    assert picture.title == "An episode" and picture.image is not None and "no screen" in picture.caption
    assert shown["names"] == [*"abcdefghijk", "action[0]", "action[1]", "action[2]"]
    x_1TD = shown["executed"].x_NTD
    assert np.isfinite(x_1TD[0, :-1]).all() and np.isnan(x_1TD[0, -1, 11:]).all()
    np.testing.assert_array_equal(shown["bounds"][:, 11:], [[-1, -1, -1], [1, 1, 1]])


def test_losses_are_left_out_where_none_were_logged(run_folder: Path) -> None:
    drawing = report.Drawing(load(run_folder), run_folder / "figures", 0)
    assert [picture.title for picture in drawing.loss()] == ["Loss"]
    (run_folder / RunFolder.METRICS).unlink()
    assert drawing.loss() == []


def test_the_actions_of_a_policy_are_drawn_over_those_of_the_data(hopper_run: Path, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(hopper_run)
    shown: list[np.ndarray] = []
    monkeypatch.setattr(report.figures, "plot_actions", lambda *given: shown.extend(given[:2]) or given[2])
    picture, = report.Drawing(run, tmp_path, 0).actions()
    recorded_NA, chosen_NA = shown
    first_BA = run.reference.x_BHD[:, 0, run.data.obs_dim :].numpy()
    real_B = run.reference.mask_BHD[:, 0, -1].numpy()
    assert picture.image == tmp_path / "actions.png" and np.array_equal(recorded_NA, first_BA[real_B])
    low_A, high_A = recorded_NA.min(0), recorded_NA.max(0)
    assert chosen_NA.shape == recorded_NA.shape and ((low_A <= chosen_NA) & (chosen_NA <= high_A)).all()
    monkeypatch.undo()
    assert report.figures.plot_actions(recorded_NA, chosen_NA, tmp_path / "drawn.png", ["a", "b", "c"]).is_file()


def test_the_page_shows_the_agent(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = iter(range(1, 10_000))
    monkeypatch.setattr("gentraj.envs.rendering.render_frame",
                        lambda _: np.full((64, 96, 3), next(grey) % 250, np.uint8))
    acting(run_folder, monkeypatch)
    with Image.open(run_folder / "figures/episode.gif") as film:
        frames = sum(1 for _ in ImageSequence.Iterator(film))
        assert report.FRAMES - 5 < frames <= report.FRAMES + 1 and film.size == (96, 64)


@pytest.mark.parametrize("content", [None, "{}"])
def test_the_head_says_how_the_run_was_made_as_far_as_it_is_known(run_folder: Path, content: str | None) -> None:
    begun, = RunFolder(run_folder).starts()
    head = report.origin(load(run_folder))
    assert head["command"] == begun["command"] and head["device"] == "cpu" and head["gentraj"] == begun["version"]
    assert head["training time"].startswith("00:")
    (run_folder / RunFolder.PROVENANCE).unlink()
    if content is not None:
        (run_folder / RunFolder.PROVENANCE).write_text(content)
    assert "command" not in report.origin(load(run_folder))


def test_a_table_has_no_row_of_dashes_and_names_its_units() -> None:
    columns, rows = score_rows(SCORES | {"deadline": {"ms": 20.0, "acted_by": {"the plan": 600}}})
    assert columns == ["measure", "planner, diffusion", "behaviour", "controller"]
    assert rows == [("environment", "Maze-v0", None, None), ("episodes", 4, 50, None),
                    ("return (mean of episodes)", 12.5, 9.0, 14.0),
                    ("return (95 % interval of the mean)", [10.0, 15.0], None, None),
                    ("first success (steps, median)", 17.0, None, None), ("training step", 6, None, None),
                    ("deadline ms", 20.0, None, None), ("deadline acted by the plan", 600, None, None)]


def test_a_table_explains_what_is_in_it_alone() -> None:
    alone = {"return_mean": 12.5, "return_ci95": None, "behaviour": None}
    assert not any(word in explanation(alone) for word in ("interval", "Behaviour", "controller"))
    assert "Behaviour" in explanation(SCORES) and explanation({}) == ""


@pytest.mark.filterwarnings("ignore:no recorded way")
def test_the_tasks_of_a_maze_are_drawn_with_its_walls_and_the_recorded_ways(far_run: Path, tmp_path: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    run = load(far_run)
    shown: dict[str, Any] = {}

    def keep(paths: Any, goals: Any, *_: object, **more: Any) -> Path:
        shown.update(more, paths=paths, goals=goals)
        return tmp_path

    monkeypatch.setattr(report.figures, "plot_paths", keep)
    monkeypatch.setattr("gentraj.envs.rendering.render_frame", lambda _: np.ones((8, 8, 3), np.uint8))
    factory = environment_factory(str(run.data.env), {"max_episode_steps": 2})
    drawing = report.Drawing(run, tmp_path, 0)
    drawing.acting(factory.spec_json)
    assert shown["titles"] == [f"task {task}:\nnot reached" for task in range(1, 6)] and len(shown["paths"]) == 5
    known = [e for e, way in enumerate(shown["ways"]) if len(way)]  # the data are one walk
    assert known
    for e in known:
        np.testing.assert_allclose(shown["ways"][e][[0, -1]], [shown["paths"][e][0], shown["goals"][e]], atol=1e-5)
    ax = Figure().add_subplot()
    assert drawing.floor is not None and drawing.floor.background is not None and factory.maze is not None
    drawing.floor.background(ax)
    assert len(ax.collections[0].get_paths()) == (~factory.maze.free).sum()


def test_padding_is_not_drawn_as_data(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every window is longer than its episode, its end repeats the last observation."""
    run, shown = load(run_folder), list[np.ndarray]()
    mask = torch.ones_like(run.reference.mask_BHD)
    mask[:, 3:] = False
    short = replace(run.reference, x_BHD=run.reference.x_BHD * mask, mask_BHD=mask)
    monkeypatch.setattr(report, "draw_samples", lambda _, __, samples, data_NHD, path: shown.append(data_NHD[..., :2]))
    report.Drawing(changed(run, reference=short), run_folder / "figures", 0).samples()
    whole = run.reference.x_BHD[: report.SAMPLES, 2:3, :2].expand(-1, mask.shape[1] - 2, -1)
    assert np.array_equal(shown[0][:, 2:], whole)


def test_samples_have_the_contexts_of_the_windows_beside_them(run_folder: Path) -> None:
    """As a planner for returns was trained; without any, it would be another model."""
    run = load(run_folder)
    context = run.reference.x_BHD[:, 0, :1] + 1
    told = changed(run, reference=replace(run.reference, context_BC=context))
    start = report.Drawing(told, run_folder / "figures", 0)._start(torch.arange(5, 9))
    assert start.context_BC is not None and torch.equal(start.context_BC, start.values_BHD[:, 0, :1] + 1)
