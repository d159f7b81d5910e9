"""Each browser has a session of its own, which ends when it leaves, and only pages of this machine reach the studio."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser")
from browserless import Browserless, drag, until
from forked import Forked
from small import gentraj
from websockets.exceptions import InvalidStatus

from gentraj.studio.loading import load_runs
from gentraj.studio.local_server import LocalServer
from gentraj.studio.server import Studio
from gentraj.studio.session import play

# `Studio` ignores it, and pytest forgets that after the fixture that makes one.
pytestmark = pytest.mark.filterwarnings("ignore:Queued a .* on a closed connection")


@pytest.fixture(scope="module")
def studio(small_run: Path) -> Iterator[Studio]:
    studio = Studio(load_runs([small_run]), port=0)
    yield studio
    studio.stop()


def studio_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "studio"}


def test_browsers_drag_and_leave_and_nothing_is_left(studio: Studio) -> None:
    before = studio_threads()
    browsers = [Browserless(studio.server.get_port()) for _ in range(2)]
    until(lambda: len(studio.views) == 2)
    for browser, goal in zip(browsers, ((1.0, -1.0), (1.0, 1.0)), strict=True):
        drag(browser, "/run/goal", (*goal, 0.12))
    sessions = [studio.views[number].session for number in sorted(studio.views)]  # in the order of the browsers
    until(lambda: all(np.isclose(each.goal[0], 1) for each in sessions))
    for session, goal in zip(sessions, ((1.0, -1.0), (1.0, 1.0)), strict=True):
        assert session.plan().question.goal == pytest.approx(goal, abs=1e-6)  # nobody moves another one's goal
    sessions[0].playing = True
    sessions[0].worker.do("play", lambda: play(sessions[0]))
    until(lambda: sessions[0].drive is not None)
    for browser in browsers:
        browser.close()
    until(lambda: not studio.views and not studio_threads() - before)
    with closing(Browserless(studio.server.get_port())):  # and the next one is served
        until(lambda: len(studio.views) == 1)
    until(lambda: not studio.views)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost.evil.example", "null"])
def test_a_page_elsewhere_gets_no_websocket(studio: Studio, origin: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        Browserless(studio.server.get_port(), origin)


def test_a_browser_cannot_publish_the_studio(studio: Studio) -> None:
    with closing(Browserless(studio.server.get_port())) as browser:
        browser.send("ShareUrlRequest")
        until(lambda: studio.views)
    assert studio.server._share_tunnel is None


def test_a_taken_port_is_stepped_over_and_what_is_no_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = LocalServer(port)
        assert server.get_port() > port
        server.stop()
    with pytest.raises(ValueError, match="65536"):
        LocalServer(65536)


def served(run: Path) -> int:
    """The command in a process that Ctrl-C interrupts, which one in the background may ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return gentraj("studio", run, "--port", 0)


def test_ctrl_c_ends_the_studio_without_a_traceback(small_run: Path) -> None:
    with Forked(served, small_run) as process:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line
        with closing(Browserless(int(line.split("127.0.0.1:")[1].split("/")[0]))) as browser:
            until(lambda: "SetSceneNodeDragBindingsMessage" in str(browser.messages))
            process.send_signal(signal.SIGINT)  # which ends the session of the browser too
            _, stderr = process.communicate()
        assert "Traceback" not in stderr and process.returncode == 130
