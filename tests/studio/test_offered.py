"""A browser can send anything; the studio takes only what its panel offers, and says what it does not take."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("viser")
from browserless import Browserless, opened, until

from gentraj.studio.controls import Controls
from gentraj.studio.guard import GuardedServer
from gentraj.studio.loading import load_runs
from gentraj.studio.planning import check_place, shown
from gentraj.studio.server import Studio
from gentraj.studio.session import MOST_DISCS

pytestmark = [pytest.mark.filterwarnings("ignore:Queued a .* on a closed connection"),
              pytest.mark.filterwarnings(r"ignore:\[viser\] .* does not match annotation")]
NAN = math.nan


@pytest.fixture(scope="module")
def connected(small_run: Path) -> Iterator[tuple[Browserless, Controls]]:
    studio = Studio(load_runs([small_run]), port=0)
    with opened(studio.server.get_port()) as browser:
        until(lambda: studio.views)
        yield browser, next(iter(studio.views.values()))
    studio.stop()


@pytest.fixture
def client(connected: tuple[Browserless, Controls]) -> tuple[Browserless, Controls]:
    """A browser whose plans are there: newer ones would replace what the session tells of a refusal."""
    connected[1].session.problem = ""
    connected[1].session.plan()
    return connected


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Iterator[None]:
    """Fails if a thread or a task of the server ended with an exception."""
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    yield
    assert not raised and "Traceback" not in capfd.readouterr().err


def send(browser: Browserless, control: object, **updates: object) -> None:
    browser.send("GuiUpdateMessage", uuid=control._impl.uuid, updates=updates)  # pyright: ignore


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize(("name", "values"), [
    ("candidates", [10**9, 0, -1, NAN, "many", None, [1]]), ("temperature", [2.5, -0.1, NAN, math.inf, "hot"]),
    ("steps", [10**6, 0]), ("seed", [-1, 2**40])])
def test_a_number_outside_of_its_slider_is_refused_in_one_line(client, name: str, values: list[object]):
    browser, view = client
    before, slider = view.session.own, view.sliders[name]
    for value in values:
        view.session.problem = ""
        send(browser, slider, value=value)
        until(lambda: view.session.problem)
        assert view.session.problem.startswith(f"{slider.label} is ") and "\n" not in view.session.problem
        assert f"a number from {slider.min} to {slider.max} is expected" in view.session.problem
    assert view.session.own == before and slider.value == getattr(before, name)
    view.session.ask()
    assert view.session.plan().question.settings == before  # and it goes on


@pytest.mark.usefixtures("failures")
@pytest.mark.parametrize(("control", "value", "line"), [
    ("run", "another", "Run is 'another'; one of "), ("by", 3, "Colour is 3; one of trust"),
    ("radius", 100.0, "Radius is 100.0; a number from 0.1 to 1.0"), ("frame", 5000, "Step is 5000; a number from 0"),
    ("clicks", "yes", "Click adds one is 'yes'; true or false"),
    ("beside", "x" * 500, r"Beside it is 'xx.*\.\.\.; one of none")])
def test_a_value_that_a_control_does_not_offer_is_refused_in_one_line(client, control: str, value: object, line: str):
    browser, view = client
    view.session.problem, before = "", getattr(view, control).value
    send(browser, getattr(view, control), value=value)
    until(lambda: view.session.problem)
    assert re.match(line, view.session.problem) and len(view.session.problem) < 200
    assert getattr(view, control).value == before


@pytest.mark.usefixtures("failures")
def test_nothing_but_values_can_be_changed_and_no_file_is_taken(client):
    browser, view = client
    slider = view.sliders["candidates"]
    for updates in ({"props": {}}, {"value": 2, "update_cb": []}, {}):
        view.session.problem = ""
        send(browser, slider, **updates)
        until(lambda: "something else than the value" in view.session.problem)
    browser.send("FileTransferStartUpload", source_component_uuid=slider._impl.uuid, transfer_uuid="a", filename="f",
                 mime_type="", part_count=2, size_bytes=10)
    send(browser, slider, value=2)
    until(lambda: view.session.own.candidates == 2)  # by then the file was looked at
    assert not view.gui._current_file_upload_states


@pytest.mark.usefixtures("failures")
def test_places_that_are_none_are_refused_and_obstacles_are_counted(client):
    browser, view = client
    session, node = view.session, "/run0/goal"
    goal = session.goal
    owner = next(each["owner"] for each in browser.messages if each["type"] == "SetSceneNodeDragBindingsMessage")
    for place in ((NAN, 0.0, 0.0), (math.inf, 0.0, 0.0), (1.0,), ()):
        session.problem = ""
        for phase in ("start", "end"):
            browser.send("SceneNodeDragMessage", phase=phase, name=node, instance_index=None, start_position=place,
                         start_screen_pos=(0.5, 0.5), end_position=place, end_screen_pos=(0.5, 0.5), button="left",
                         modifier=None, owner=owner)
        until(lambda: session.problem)
        assert "\n" not in session.problem and session.goal == goal
    session.discs = ()
    for _ in range(MOST_DISCS):
        session.add_disc([1.0, 1.0], 0.1)
    with pytest.raises(ValueError, match="there are 20 obstacles"):
        session.add_disc([1.0, 1.0], 0.1)
    session.remove_discs()


def test_what_is_no_message_ends_the_session_in_one_line(capfd: pytest.CaptureFixture):
    server = GuardedServer(port=0)
    for data in (b"", b"no message", *map(msgspec.msgpack.encode, (
            {"type": "NoSuchMessage"}, {"type": "GuiUpdateMessage", "uuid": 3},
            {"type": "SceneNodeDragMessage", "end_position": ["a", "b", "c"]}))):
        with Browserless(server.get_port()) as browser:
            browser.socket.send(data)
            until(lambda: server.guard.clients == 0)
            until(lambda browser=browser: browser.socket.close_code is not None)
            assert "no message of its pages" in browser.socket.close_reason
    server.stop()
    assert "Traceback" not in capfd.readouterr().err


def test_a_place_is_two_finite_numbers():
    assert check_place((1, 2.5)).tolist() == [1, 2.5]
    for place in ((1,), (1, 2, 3), (math.inf, 0), (NAN, 0), "ab", None, {}):
        with pytest.raises(ValueError, match="2 finite numbers are expected"):
            check_place(place)  # pyright: ignore[reportArgumentType]
    assert shown("a\n" * 100).count("\n") == 0 and len(shown("a" * 10**6)) == 60
