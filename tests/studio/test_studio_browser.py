"""The studio in a browser, as a newcomer uses it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browserless
import numpy as np
import pytest

pytest.importorskip("viser")
pytest.importorskip("playwright")
from browser import CHROMIUM, Newcomer, chromium, until

from gentraj.studio import driving
from gentraj.studio.loading import load_runs
from gentraj.studio.server import Studio

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
              pytest.mark.filterwarnings("ignore:Queued a .* on a closed connection")]
COARSE = "fixedDpr=0.4"  # so few pixels that a browser without a GPU draws them fast


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def studio(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of two runs, "first" and "second"."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        shutil.copytree(small_run, folder / name)
    studio = Studio(load_runs([folder / "first", folder / "second"]), port=0)
    yield studio
    studio.stop()


def test_a_newcomer_drags_switches_blocks_and_executes(window: Any, studio: Studio, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driving, "speed", lambda _: 5.0)  # so that no episode ends before a busy machine presses Pause
    page, errors = window.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: errors.append(request.url) if "127.0.0.1" not in request.url
            and not request.url.startswith(("data:", "blob:")) else None)
    page.goto(f"{studio.url}?{COARSE}")
    page.get_by_text("plans trusted").wait_for()
    client, = studio.server.get_clients().values()
    until(page, lambda: client.client_id in studio.views)
    view = studio.views[client.client_id]
    until(page, lambda: np.allclose(client.camera.position, view.camera[0], atol=1e-3))  # where the scene wants it
    session, person = view.session, Newcomer(page, client, tmp_path)
    person.dismiss()

    for attribute, to in (("goal", (1.0, 0.6)), ("obs", (-1.0, -0.6))):
        before = session.answer
        person.drag((*getattr(session, attribute)[:2], 0.12), (*to, 0.12), steps=2)
        until(page, lambda at=attribute, to=to: np.allclose(getattr(session, at)[:2], to, atol=0.15))
        until(page, lambda before=before: session.answer is not before)  # it plans on the way
        session.plan()
    assert session.plan().question.goal == session.goal

    person.choose("Run", "second")
    until(page, lambda: session.loaded.name == "second")
    assert session.plan().loaded.name == "second"

    page.get_by_role("checkbox", name="Click adds one").click()
    until(page, lambda: view.clicks.value)
    person.click(1.0, 0.0)
    until(page, lambda: len(session.discs) == 1)
    assert (session.discs[0].x, session.discs[0].y) == pytest.approx((1.0, 0.0), abs=0.1)
    page.get_by_text("Certificate").wait_for()
    assert session.plan().certificate is not None

    person.press("Play")
    page.get_by_text("on its way").wait_for()
    until(page, lambda: session.drive is not None and session.drive.steps > 5)
    person.press("Pause")
    until(page, lambda: not session.playing)
    assert session.drive is not None
    stopped = session.drive.steps
    page.get_by_text(f"Step {stopped}, return").wait_for()

    assert not errors and not session.problem

    page.close()
    browserless.until(lambda: session.worker.closed and not studio.views)
