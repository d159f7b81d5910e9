"""Figures: each function writes a readable image; the report is one file that needs no other."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gentraj.plots import comparison as comparison_figures
from gentraj.plots import figures, signals
from gentraj.plots.page import Picture, Table, write_report
from gentraj.plots.signals import Signals, plot_signals
from gentraj.plots.style import Floor, colours, log_ticks, panels, save, trust_scale

RNG = np.random.default_rng(0)
PLANS = RNG.normal(size=(5, 8, 2)).cumsum(1)
GOAL = np.zeros(2)
FRAMES = RNG.integers(0, 256, (3, 120, 160, 3), np.uint8)
TIMES = Signals("data", np.arange(8), PLANS, "#000000")
ROWS = [{"step": s, "model/loss": 1.0 / s, "lr": 1e-3} for s in range(1, 30)]



def loss(rows: list[dict[str, Any]], path: Path) -> Path:
    curve = comparison_figures.Curve.of(rows, "model/loss")
    return comparison_figures.plot_learning_curves({"model/loss": {"training": curve}}, path, "loss", "Loss", log=True)


DRAWERS = {
    "loss": lambda path, _: loss(ROWS, path),
    "returns": lambda path, _: figures.plot_returns([1.0, 2.0, 2.5], {"random": 0.5}, path),
    "paths": lambda path, walls: figures.plot_paths(list(PLANS), PLANS[:, -1], path, walls, [PLANS] * 5),
    "candidates": lambda path, walls: figures.plot_candidates(PLANS, np.arange(5) / 2, 1, path, walls, goal=GOAL),
    "beside": lambda path, walls: figures.plot_samples_beside_data({"a": PLANS, "b": PLANS}, PLANS[:2], path, walls),
    "gif": lambda path, _: figures.save_gif(list(FRAMES), path, 150),
    "signals": lambda path, _: plot_signals([TIMES], ("x", "y"), path, "Signals", np.array([[-9, -np.inf], [9, 9]])),
    "frontier": lambda path, _: comparison_figures.plot_frontier(
        {"a": (10.0, (0.4, 0.5, 0.6)), "b": (300.0, (0.1, 0.2, 0.2))}, {"a"}, path, "return"),
}
WALLED = [name for name in DRAWERS if name in ("paths", "candidates", "beside")]


def red_floor(ax) -> None:
    ax.axhspan(-30, 30, color="#ff0000")
    ax.set(xlim=(-3, 3), ylim=(-3, 3))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


@pytest.mark.parametrize("name", DRAWERS)
def test_every_figure_is_an_image_with_ink(name: str, tmp_path: Path):
    path = tmp_path / "new" / f"{name}.{'gif' if name == 'gif' else 'png'}"
    assert DRAWERS[name](path, Floor()) == path
    assert pixels(path).min() < 100 and pixels(path).shape[0] > 100


@pytest.mark.parametrize("name", WALLED)
def test_the_background_is_drawn_beneath(name: str, tmp_path: Path):
    path = DRAWERS[name](tmp_path / "x.png", Floor(red_floor))
    red = (np.abs(pixels(path) - [255, 0, 0]) < 25).all(-1)
    assert red.mean() > 0.1


def test_the_gif_has_every_frame_repeats_and_rests_on_the_last(tmp_path: Path):
    with Image.open(DRAWERS["gif"](tmp_path / "d.gif", Floor())) as film:
        durations = []
        for index in range(film.n_frames):
            film.seek(index)
            durations.append(film.info["duration"])
        assert durations == [150, 150, 1150] and film.info["loop"] == 0


def test_trust_changes_its_hue_exactly_at_the_threshold():
    norm, colours = trust_scale(3.0)
    trusted, distrusted = colours(norm([0.2, 0.99])), colours(norm([1.01, 3.0]))
    assert (trusted[:, 2] > trusted[:, 0]).all(), "trusted plans are blue"
    assert (distrusted[:, 0] > distrusted[:, 2]).all(), "distrusted ones are orange"


@pytest.mark.filterwarnings("error")
def test_a_label_has_one_colour_in_all_panels_and_values_of_0_have_no_logarithm(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    monkeypatch.setattr(comparison_figures, "save", lambda figure, path: kept.append(figure) or save(figure, path))

    def curve(*values: float) -> comparison_figures.Curve:
        return comparison_figures.Curve.of([{"step": k, "x": x} for k, x in enumerate(values)], "x")

    comparison_figures.plot_learning_curves(
        {"observation": {"mean": curve(0.0), "sample": curve(0.0), "nothing changes": curve(0.0)},
         "reward": {"mean": curve(0.1, 0.2), "the average": curve(0.0, 0.3)}}, tmp_path / "errors.png", "error", "",
        log=True)
    single, several = kept[0].axes
    assert {line.get_marker() for line in single.lines} == {"o"} and single.get_yscale() == "linear"
    assert several.get_yscale() == "log"
    colour = {line.get_label(): line.get_color() for ax in kept[0].axes for line in ax.lines}
    assert [line.get_color() for line in several.lines] == [colour["mean"], colour["the average"]]
    assert len(set(colour.values())) == len(colour) == 4


class Page(HTMLParser):
    """The page's tags, its text, and whatever it would fetch."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[str] = []
        self.text, self.sources, self.open = "", [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "every tag is closed in its order"

    def handle_data(self, data):
        self.text += data


def test_the_report_stands_alone(tmp_path: Path):
    image = DRAWERS["loss"](tmp_path / "loss.png", None)
    table = Table("Scores", ["agent", "return (native)"], [["planner", 244.2161], ["random", None]], "50 episodes")
    page = Page(write_report(tmp_path / "report.html", "Run", [
        table, Picture("Loss", "of the model", image), Picture("Paths", "caption", tmp_path / "gone.png")],
        {"success rate": 0.98}))
    assert not page.open and "script" not in page.tags and "link" not in page.tags
    assert [s[:22] for s in page.sources] == ["data:image/png;base64,"]
    for expected in ("success rate", "0.98", "planner", "244.2", "—", "50 episodes", "of the model",
                     f"Not shown: {tmp_path / 'gone.png'}"):
        assert expected in page.text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loss.png", "report.html"]


def test_the_report_escapes_every_text(tmp_path: Path):
    evil = '<script>alert("x")</script>'
    parts = [Table(evil, [evil], [[evil]], evil), Picture(evil, evil, DRAWERS["loss"](tmp_path / "l.png", None)),
             Picture(evil, evil, None, evil)]
    page = Page(write_report(tmp_path / "r.html", evil, parts, {evil: evil}))
    assert "script" not in page.tags and page.text.count(evil) == 12


def test_a_floor_has_one_scale_in_metres_or_by_the_names_of_its_entries() -> None:
    points = np.array([[0.0, 0.0], [1.0, 100.0]])
    for floor, labels in ((Floor(), ("x (m)", "y (m)")), (Floor(None, (2, 5), ("arm", "leg")), ("arm", "leg"))):
        _, [ax] = panels(1)
        floor.draw(ax, points)
        assert (ax.get_xlabel(), ax.get_ylabel()) == labels and ax.get_aspect() == 1.0
        assert np.diff(ax.get_xlim()) == pytest.approx(82)


def signals_figure(monkeypatch: pytest.MonkeyPatch, path: Path, first_TD: np.ndarray, *more_TD: np.ndarray) -> Any:
    """The figure of signals whose entries are "x0", "x1" and so on."""
    kept = []
    monkeypatch.setattr(signals, "save", lambda figure, path: kept.append(figure) or save(figure, path))
    drawn = [Signals("a line", np.arange(len(x_TD)), x_TD[None], "#000000") for x_TD in (first_TD, *more_TD)]
    plot_signals(drawn, [f"x{d}" for d in range(first_TD.shape[1])], path, "")
    return kept[0]


def test_signals_that_vary_are_drawn_and_constant_ones_are_named(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    x_TD = RNG.normal(size=(9, 3))
    x_TD[:, 0] = 0.25
    x_TD[-1, 2] = np.nan  # no action follows the last observation
    figure = signals_figure(monkeypatch, tmp_path / "x.png", x_TD, RNG.normal(size=(5, 3)))
    assert [ax.get_ylabel() for ax in figure.axes] == ["x1", "x2"]
    assert "steps" in figure.axes[-1].get_xlabel() and "x0 0.25" in figure.axes[-1].get_xlabel()
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


@pytest.mark.filterwarnings("error")
def test_of_a_hundred_signals_some_are_drawn_from_the_first_to_the_last_and_the_figure_says_so(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = signals_figure(monkeypatch, tmp_path / "x.png", RNG.normal(size=(9, 100)))
    drawn = [ax.get_ylabel() for ax in figure.axes]
    assert drawn[0] == "x0" and drawn[-1] == "x99" and len(drawn) < 20
    assert f"{len(drawn)} of the 100" in figure.axes[-1].get_xlabel()
    constant = signals_figure(monkeypatch, tmp_path / "y.png", np.ones((2, 3)))
    assert constant.axes  # an episode is shown in which nothing changes


def test_no_colour_is_there_twice() -> None:
    for count in (0, 1, 6, 12, 13, 40):
        assert len({*colours(count)}) == count


@pytest.mark.parametrize(("low", "high"), [(0.31, 0.45), (0.1, 0.6), (0.08, 1.2), (1e-4, 30.0), (2.0, 2.1)])
def test_a_logarithmic_axis_has_some_ticks_in_plain_numbers(low: float, high: float) -> None:
    figure, [ax] = panels(1)
    ax.plot([low, high], [0, 1])
    ax.set_xscale("log")
    log_ticks(ax.xaxis)
    figure.draw_without_rendering()
    begin, end = ax.get_xlim()
    shown = {text.get_text() for text in ax.get_xticklabels() if begin <= text.get_position()[0] <= end}
    assert 2 <= len(shown) <= 9 and not any("$" in text for text in shown)


def test_returns_that_differ_by_rounding_only_are_a_histogram(tmp_path):
    for returns in ([0.1 + 0.2, 0.3, 0.3], [0.0, 0.0]):
        assert pixels(figures.plot_returns(returns, {}, tmp_path / "a.png")).std() > 0


def test_rows_without_a_number_are_left_out_of_a_loss(tmp_path):
    plain = pixels(loss(ROWS, tmp_path / "a.png"))
    gaps = [*ROWS, {"step": 30, "model/loss": None}, {"step": 31, "model/loss": float("nan")}]
    assert np.array_equal(pixels(loss(gaps, tmp_path / "b.png")), plain)
