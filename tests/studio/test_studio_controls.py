"""The studio's panel and scene on a server of viser, without a browser: every control does what it says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small import changed

from gentraj.studio.controls import NONE, Controls
from gentraj.studio.drawing import SEGMENTS_AT_FIRST as FEW
from gentraj.studio.drawing import Lines, linear, plan_colours, rgb, segments
from gentraj.studio.export import downloads
from gentraj.studio.guard import GuardedServer
from gentraj.studio.loading import Loaded
from gentraj.studio.planning import Disc, described
from gentraj.studio.scene import CROSSING, MazeScene, boxes, on_floor
from gentraj.studio.session import Session


class Client:
    """A client that keeps the files that are sent to it."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}
        self.camera = SimpleNamespace(position=None, look_at=None)

    def send_file_download(self, name: str, content: bytes, **_: Any) -> None:
        self.sent[name] = content


@pytest.fixture
def controls(server: GuardedServer, mazes: list[Loaded]) -> Iterator[Controls]:
    server.gui.reset()
    server.scene.reset()
    controls = Controls(server.gui, server.scene, Session(mazes), Client())
    yield controls
    controls.close()


def scene(controls: Controls, side: int = 0) -> MazeScene:
    return controls.scenes[side]  # pyright: ignore[reportReturnType]


def drawn(controls: Controls, name: str, side: int = 0) -> np.ndarray:
    """(M, 2, 3) the segments of a line that have a length."""
    handle = getattr(scene(controls, side), name).handle
    points_L23 = handle.points[: len(handle.points) * handle.visible]
    return points_L23[(points_L23[:, 0] != points_L23[:, 1]).any(1)]


def press(button: Any) -> None:
    """Does what a click on a button does, in this thread."""
    for callback in button._impl.update_cb:
        callback(SimpleNamespace(target=button, client=None))


def change(control: Any, value: Any) -> None:
    """Does what a change in the browser does, in this thread."""
    control._impl.value = value
    press(control)


def test_sliders_reach_to_the_runs_own_settings(server: Any, bodies: list[Loaded]) -> None:
    """Which may be larger than what most runs need, or negative."""
    server.gui.reset()
    server.scene.reset()
    run = bodies[0].run
    own = replace(run.planning, guidance="value", scale=-2.0, temperature=3.0, steps=80)
    loaded = replace(bodies[0], run=changed(run, config=replace(run.config, planner=own), acting=own))
    controls = Controls(server.gui, server.scene, Session([loaded]), Client())
    assert [controls.sliders[name].value for name in ("scale", "temperature", "steps")] == [-2.0, 3.0, 80]
    assert [controls.sliders["scale"].min, controls.sliders["temperature"].max] == [-2.0, 3.0]
    controls.close()


def test_a_slider_changes_the_plans_and_the_panel_tells(controls: Controls) -> None:
    change(controls.sliders["candidates"], 3)
    change(controls.sliders["temperature"], 0.5)
    answer = controls.session.plan()
    controls.draw()
    assert answer.question.settings.candidates == 3 and answer.question.settings.temperature == 0.5
    assert controls.telling.wait(10) and f"of {len(answer.x_NHD)} plans trusted" in controls.status.content
    assert f"{answer.ms:.0f} ms" in controls.status.content
    controls.session.fail(ValueError("no plan"))
    assert controls.telling.wait(10) and "**no plan**" in controls.status.content  # the last text is written


def test_plans_are_drawn_where_they_lead(controls: Controls) -> None:
    answer = controls.session.plan()
    orange, blue = plan_colours(replace(answer, ratio_N=np.array([2.0, 0.5]))).astype(int)
    assert blue[2] > blue[0] and orange[0] > orange[2]  # where it is trusted and where not
    controls.draw()
    points_M23 = drawn(controls, "chosen")
    np.testing.assert_allclose(points_M23[0, 0, :2], answer.places(answer.chosen)[0], atol=1e-6)
    np.testing.assert_allclose(points_M23[-1, 1, :2], answer.places(answer.chosen)[-1], atol=1e-6)
    np.testing.assert_allclose(scene(controls).start.position[:2], controls.session.obs[:2])
    np.testing.assert_allclose(scene(controls).goal.position[:2], controls.session.goal[:2])


def test_what_of_the_chosen_plan_crosses_a_wall_or_an_obstacle_is_red_and_counted(controls: Controls) -> None:
    answer = controls.session.plan()
    x_NHD = np.zeros_like(answer.x_NHD)
    x_NHD[:, :2, :2] = [-1.0, 1.0]
    x_NHD[:, 2:, :2] = [-1.0, -1.0]  # through a wall of UMaze
    leaps = replace(answer, x_NHD=x_NHD, arrival_step_N=np.full(len(x_NHD), 3))
    scene(controls).show(leaps)
    colours_S3 = scene(controls).chosen.handle.colors[:3, 0]
    assert (colours_S3 == linear(np.array(rgb(CROSSING)))).all(1).tolist() == [False, True, False]
    assert "**1 of 3**" in described(leaps)
    stays = replace(leaps, arrival_step_N=np.ones(len(x_NHD), int))
    assert not stays.crossing.any() and "cross" not in described(stays)
    blocked = replace(stays, question=replace(answer.question, discs=(Disc(-1.0, 1.2, 0.3),)))
    assert blocked.crossing.tolist() == [True]


def test_a_click_adds_an_obstacle_and_a_click_on_it_removes_it(controls: Controls) -> None:
    change(controls.clicks, True)
    [entry] = controls.api._scene_pointer_cb
    entry.callback(SimpleNamespace(ray_origin=(0.0, 1.2, 5.0), ray_direction=(0.0, 0.0, -1.0)))
    [disc] = controls.session.discs
    assert (disc.x, disc.y) == (0.0, 1.2)
    controls.session.plan()
    controls.draw()
    assert controls.telling.wait(10) and "Certificate" in controls.status.content
    assert list(scene(controls).discs) == [disc]
    change(controls.clicks, False)
    assert not controls.api._scene_pointer_cb
    controls.session.block()
    controls.draw()
    assert not scene(controls).discs


def test_two_runs_are_drawn_side_by_side_with_one_start_and_goal(controls: Controls) -> None:
    change(controls.beside, controls.beside.options[1])
    controls.session.plan()
    controls.draw()
    left, right = scene(controls), scene(controls, 1)
    assert right.shift >= left.width
    np.testing.assert_array_equal(drawn(controls, "chosen"), drawn(controls, "chosen", 1))  # the run is the same
    session = controls.session
    assert session.second is not None and controls.client.camera.position == right.camera[0]
    session.settings[session.second] = replace(session.settings[session.second], steps=3)
    session.ask()
    session.plan()
    controls.draw()  # with another number of frames in its denoising
    assert [len(session.answers[side].frames) for side in (0, 1)] == [1, 3]
    change(controls.beside, NONE)
    assert len(controls.scenes) == 1
    change(controls.run, controls.run.options[1])
    assert session.loaded is session.runs[1] and session.plan().loaded is session.loaded


def test_the_denoising_is_scrubbed(controls: Controls) -> None:
    change(controls.sliders["steps"], 4)
    answer = controls.session.plan()
    controls.draw()
    finished = drawn(controls, "chosen")
    change(controls.frame, 0)
    noisy = drawn(controls, "chosen")
    x_HD = answer.frames[0][answer.chosen]
    np.testing.assert_allclose(noisy[:, 0, :2], x_HD[:-1, :2], atol=1e-6)
    change(controls.frame, controls.frame.max)
    np.testing.assert_array_equal(drawn(controls, "chosen"), finished)


def test_the_loop_is_stepped_shown_and_reset(controls: Controls) -> None:
    controls.session.loop.step(3)  # which draws
    assert controls.telling.wait(10) and "Step 3" in controls.loop.content
    assert scene(controls).body.visible and len(drawn(controls, "path")) == 3
    controls.session.reset()
    assert controls.telling.wait(10) and "at the start" in controls.loop.content
    assert not scene(controls).body.visible and not len(drawn(controls, "path"))


def test_the_buttons_send_files(controls: Controls) -> None:
    buttons = downloads(controls.session, controls.client, lambda: controls.by.value)
    for name in ("Plan (.npz)", "Python call", "Page (.html)"):
        buttons[name]()
    with np.load(io.BytesIO(controls.client.sent["plan.npz"]), allow_pickle=False) as saved:
        assert saved["obs"].ndim == 3
    assert b"gentraj.load" in controls.client.sent["plan.py"] and b"</html>" in controls.client.sent["studio.html"]
    with pytest.raises(ValueError, match="press Play first"):
        buttons["Video of the closed loop"]()


def test_geometry_of_rays_walls_and_lines() -> None:
    np.testing.assert_allclose(on_floor((0, 0, 2), (1, 1, 1)), [2, 2])
    assert on_floor((0, 0, 2), (1, 1, 3)) is None and on_floor((0, 0, 2), (1, 1, 2)) is None
    vertices, faces = boxes(np.array([[0.0, 0.0]]), np.array([[2.0, 1.0]]), 0.5)
    assert vertices.max(0).tolist() == [2, 1, 0.5] and faces.shape == (12, 3)
    a, b, c = vertices[faces].transpose(1, 0, 2)
    outward = ((a + b + c) / 3 - [1, 0.5, 0.25]) * np.cross(b - a, c - a)
    assert (outward.sum(1) > 0).all()  # every triangle is seen from outside
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

