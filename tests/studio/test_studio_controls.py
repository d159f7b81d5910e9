"""The studio's panel and scene on a server of viser, without a browser: every control does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browserless import until

from gentraj.envs.tasks.maze import Disc
from gentraj.studio.controls import SLIDERS, Controls
from gentraj.studio.drawing import DRAG, Lines, colours_in_words, linear, plan_colours, rgb, segments
from gentraj.studio.drawing import SEGMENTS_AT_FIRST as FEW
from gentraj.studio.loading import Loaded
from gentraj.studio.scene import CROSSING, MazeScene, on_floor, scene_of
from gentraj.studio.session import Session


@pytest.fixture
def controls(client: Any, mazes: list[Loaded]) -> Iterator[Controls]:
    controls = Controls(Session(mazes), client)
    settle(controls)
    yield controls
    controls.session.close()


def settle(controls: Controls) -> None:
    """Waits until the worker has done everything, texts included."""
    assert controls.session.worker.wait(*SLIDERS, "choose", "block", "plan", "grow", "step", "reset", "toggle", "play",
                                        "draw", "texts")


def scene(controls: Controls) -> MazeScene:
    return controls.scene  # pyright: ignore[reportReturnType]


def drawn(controls: Controls, name: str) -> np.ndarray:
    """(M, 2, 3) the segments of a line that have a length."""
    handle = getattr(scene(controls), name).handle
    points_L23 = handle.points[: len(handle.points) * handle.visible]
    return points_L23[(points_L23[:, 0] != points_L23[:, 1]).any(1)]


def shows_body(controls: Controls) -> bool:
    return any(handle.visible for handle in scene(controls).body.handles.values())


def change(controls: Controls, control: Any, value: Any) -> None:
    """Does what a change in the browser does, and waits for it."""
    control._impl.value = value
    for callback in control._impl.update_cb:
        callback(SimpleNamespace(target=control, client=None))
    settle(controls)


def test_a_slider_changes_the_plans_and_the_panel_tells(controls: Controls) -> None:
    change(controls, controls.sliders["candidates"], 3)
    change(controls, controls.sliders["temperature"], 0.5)
    answer = controls.session.plan()
    assert answer.question.settings.candidates == 3 and answer.question.settings.temperature == 0.5
    assert f"of {len(answer.x_NHD)} plans trusted" in controls.status.content
    assert f"{answer.ms:.0f} ms" in controls.status.content
    controls.session.fail(ValueError("no plan"))
    settle(controls)
    assert "**no plan**" in controls.status.content


def test_the_panel_explains_what_is_drawn_and_what_can_be_dragged(controls: Controls, client: Any,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    answer = controls.session.plan()
    valued = replace(answer, value_N=np.arange(float(len(answer.x_NHD))))
    for line in (*scene(controls).legend, colours_in_words(answer)):
        assert line in controls.status.content
    assert colours_in_words(valued) != colours_in_words(answer)
    labels = []
    monkeypatch.setattr(client.scene, "add_label", lambda name, text, **_: labels.append(text))
    scene_of(client.scene, controls.session)
    assert {f"start{DRAG}", f"goal{DRAG}"} < {*labels}


def test_plans_are_drawn_where_they_lead(controls: Controls) -> None:
    answer = controls.session.plan()
    orange, blue = plan_colours(replace(answer, ratio_N=np.array([2.0, 0.5]))).astype(int)
    assert blue[2] > blue[0] and orange[0] > orange[2]  # where it is trusted and where not
    points_M23 = drawn(controls, "chosen")
    np.testing.assert_allclose(points_M23[[0, -1], [0, 1], :2], answer.places(answer.chosen)[[0, -1]], atol=1e-6)
    np.testing.assert_allclose(scene(controls).start.position[:2], controls.session.obs[:2])
    np.testing.assert_allclose(scene(controls).goal.position[:2], controls.session.goal[:2])


def test_the_way_to_a_far_goal_is_drawn_in_the_environments_place(client: Any, far: list[Loaded]) -> None:
    controls = Controls(Session(far), client)
    settle(controls)
    way_M23 = drawn(controls, "way")
    np.testing.assert_allclose(way_M23[[0, -1], [0, 1], :2], [controls.session.obs, controls.session.goal], atol=1e-5)
    maze = far[0].maze
    assert maze is not None and maze.is_free(way_M23[..., :2]).all()
    np.testing.assert_allclose(scene(controls).frame.position[:2], -maze.middle)  # the maze is drawn in the middle
    controls.session.close()


def test_what_of_the_chosen_plan_crosses_a_wall_or_an_obstacle_is_red_and_counted(controls: Controls) -> None:
    answer = controls.session.plan()
    x_NHD = np.zeros_like(answer.x_NHD)
    x_NHD[:, :2, :2] = [-1.0, 1.0]
    x_NHD[:, 2:, :2] = [-1.0, -1.0]  # through a wall of UMaze
    leaps = replace(answer, x_NHD=x_NHD, arrival_step_N=np.full(len(x_NHD), 3))
    scene(controls).draw(leaps)
    colours_S3 = scene(controls).chosen.handle.colors[:3, 0]
    assert (colours_S3 == linear(np.array(rgb(CROSSING)))).all(1).tolist() == [False, True, False]
    assert "**1 of 3**" in str(leaps)
    stays = replace(leaps, arrival_step_N=np.ones(len(x_NHD), int))
    assert not stays.crossing.any() and "cross" not in str(stays)
    blocked = replace(stays, question=replace(answer.question, discs=(Disc(-1.0, 1.2, 0.3),)))
    assert blocked.crossing.tolist() == [True]


def test_a_click_adds_an_obstacle(controls: Controls) -> None:
    change(controls, controls.clicks, True)
    [entry] = controls.api._scene_pointer_cb
    entry.callback(SimpleNamespace(ray_origin=(0.0, 1.2, 5.0), ray_direction=(0.0, 0.0, -1.0)))
    until(lambda: controls.session.discs)
    settle(controls)
    [disc] = controls.session.discs
    assert (disc.x, disc.y) == (0.0, 1.2)
    assert "Certificate" in controls.status.content and list(scene(controls).discs) == [disc]
    change(controls, controls.clicks, False)
    assert not controls.api._scene_pointer_cb
    controls.session.block()
    settle(controls)
    assert not scene(controls).discs


def test_another_run_is_chosen(controls: Controls) -> None:
    session = controls.session
    change(controls, controls.run, controls.run.options[1])
    assert session.loaded is session.runs[1] and session.plan().loaded is session.loaded
    np.testing.assert_array_equal(scene(controls).frame.position[:2], scene(controls).offset_2)


def test_the_denoising_is_scrubbed(controls: Controls) -> None:
    change(controls, controls.sliders["steps"], 4)
    answer = controls.session.plan()
    finished = drawn(controls, "chosen")
    change(controls, controls.frame, 0)
    x_HD = answer.frames[0][answer.chosen]
    np.testing.assert_allclose(drawn(controls, "chosen")[:, 0, :2], x_HD[:-1, :2], atol=1e-6)
    change(controls, controls.frame, controls.frame.max)
    np.testing.assert_array_equal(drawn(controls, "chosen"), finished)


def test_the_loop_is_stepped_played_shown_and_reset(controls: Controls) -> None:
    for steps in (1, 2):
        change(controls, controls.step, True)
        assert f"Step {steps}" in controls.loop.content
    assert shows_body(controls) and len(drawn(controls, "path")) == 2
    change(controls, controls.play, True)
    assert controls.session.drive.steps > 2 and controls.play.label == "Play"  # the episode is over
    change(controls, controls.reset, True)
    assert "at the start" in controls.loop.content
    assert not shows_body(controls) and not len(drawn(controls, "path"))


def test_a_loop_that_is_paused_in_a_step_takes_no_further_one(controls: Controls) -> None:
    session = controls.session

    def pause() -> None:
        session.on_change = controls.draw
        session.worker.do("toggle", controls._toggle)

    session.on_change = pause
    change(controls, controls.play, True)
    assert not session.playing and session.drive is not None and 0 < session.drive.steps < 10
    assert controls.play.label == "Play"


def test_geometry_of_rays_and_lines() -> None:
    np.testing.assert_allclose(on_floor((0, 0, 2), (1, 1, 1)), [2, 2])
    assert on_floor((0, 0, 2), (1, 1, 3)) is None and on_floor((0, 0, 2), (1, 1, 2)) is None
    assert segments([np.zeros((3, 2)), np.ones((2, 2))], 0.1).shape == (3, 2, 3)


def test_a_line_is_one_node_whose_room_doubles(server: Any) -> None:
    made, scene = [], server.scene
    api = SimpleNamespace(add_line_segments=lambda *args, **kw: made.append(scene.add_line_segments(*args, **kw))
                          or made[-1])
    lines, points_M23 = Lines(api, "/line", 2.0), np.random.default_rng(0).normal(size=(2 * FEW, 2, 3))
    for count, rooms in ((3, [FEW]), (FEW, [FEW]), (1, [FEW]), (FEW + 1, [FEW, 2 * FEW])):
        lines.draw(points_M23[:count], np.array([1, 2, 3]))
        assert [len(handle.points) for handle in made] == rooms
        np.testing.assert_allclose(lines.handle.points[:count], points_M23[:count], rtol=1e-6)
        assert not np.ptp(lines.handle.points[count:], axis=1).any()  # the rest has no length
    lines.draw(points_M23[:0], np.array([1, 2, 3]))
    assert not lines.handle.visible
    lines.draw(points_M23[:2], np.array([[0, 188, 255], [188, 0, 0]]))
    assert lines.handle.visible  # 188 of sRGB is half of the light
    assert lines.handle.colors[:3, 0].tolist() == [[0, 128, 255], [128, 0, 0], [128, 0, 0]]
