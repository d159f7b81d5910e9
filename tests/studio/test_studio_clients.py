"""Many browsers at once: each has a session of its own, which ends when it leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser")
from browserless import Browserless, opened, until
from forked import Forked
from small import gentraj

from gentraj.studio.loading import load_runs
from gentraj.studio.server import Studio

BROWSERS = 3
# `Studio` ignores it, and pytest forgets that after the fixture that makes one.
pytestmark = pytest.mark.filterwarnings("ignore:Queued a .* on a closed connection")


@pytest.fixture(scope="module")
def studio(small_run: Path) -> Iterator[Studio]:
    studio = Studio(load_runs([small_run]), port=0)
    yield studio
    studio.stop()


def drag(browser: Browserless, node: str, x: float, y: float, height: float = 0.12) -> None:
    """Drags a node of the scene to a place on the floor, as a browser reports it."""
    until(lambda: any(each["type"] == "SetSceneNodeDragBindingsMessage" and each["name"] == node
                      for each in list(browser.messages)))
    owner = next(each["owner"] for each in browser.messages if each["type"] == "SetSceneNodeDragBindingsMessage")
    place = (x, y, height)
    for phase in ("start", "update", "end"):
        browser.send("SceneNodeDragMessage", phase=phase, name=node, instance_index=None, start_position=place,
                     start_screen_pos=(0.5, 0.5), end_position=place, end_screen_pos=(0.5, 0.5), button="left",
                     modifier=None, owner=owner)


def studio_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("studio-")]


def test_browsers_drag_and_leave_and_nothing_is_left(studio: Studio):
    before = set(studio_threads())
    browsers = [opened(studio.server.get_port()) for _ in range(BROWSERS)]
    until(lambda: len(studio.views) == BROWSERS)
    goals = [(1.0, y) for y in np.linspace(-1, 1, BROWSERS).tolist()]
    for browser, goal in zip(browsers, goals, strict=True):
        drag(browser, "/run0/goal", *goal)
    sessions = [studio.views[number].session for number in sorted(studio.views)]  # in the order of the browsers
    until(lambda: all(np.isclose(each.goal[0], 1) for each in sessions))
    for session, goal in zip(sessions, goals, strict=True):
        assert session.goal == pytest.approx(goal, abs=1e-6)  # nobody moves another one's goal
        assert session.plan().question.goal == pytest.approx(goal, abs=1e-6)
    sessions[0].loop.player.play()
    until(lambda: sessions[0].loop.drive is not None)
    assert set(studio_threads()) - before
    for browser in browsers:
        browser.close()
    until(lambda: not studio.views and not set(studio_threads()) - before)
    assert all(session.closed for session in sessions) and not sessions[0].loop.player.playing
    with opened(studio.server.get_port()):  # and the next one is served
        until(lambda: len(studio.views) == 1)


def test_a_browser_that_leaves_at_once_leaves_nothing(studio: Studio):
    for _ in range(3):
        opened(studio.server.get_port()).close()
    until(lambda: studio.server.guard.clients == 0)
    until(lambda: not studio.views and not studio_threads())


def test_a_run_that_cannot_be_shown_is_told_in_the_panel(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise ValueError("this run has\nno scene")

    monkeypatch.setattr("gentraj.studio.server.Session", refuse)
    with opened(studio.server.get_port()) as browser:
        until(lambda: "no scene" in str(browser.messages))
    assert not studio.views


def served(run: Path) -> int:
    """The command in a process that Ctrl-C interrupts, which one in the background may ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return gentraj("studio", run, "--port", 0)


def test_ctrl_c_ends_the_studio_without_a_traceback(small_run: Path):
    with Forked(served, small_run) as process:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line
        with opened(int(line.split("127.0.0.1:")[1].split("/")[0])) as browser:
            until(lambda: "SetSceneNodeDragBindingsMessage" in str(browser.messages))
            process.send_signal(signal.SIGINT)  # which ends the session of the browser too
            rest, stderr = process.communicate()
        assert not rest and "Traceback" not in stderr and process.returncode == 130
