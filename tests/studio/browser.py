"""The system's own Chromium, driven as a person drives it; nothing is downloaded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ("--no-sandbox", "--headless=new", "--use-gl=angle", "--use-angle=swiftshader",
             "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--ignore-gpu-blocklist")
SIZE = {"width": 900, "height": 560}
PATIENCE = 180_000  # milliseconds; a busy machine without a GPU draws a frame in seconds
TWO_FRAMES = "() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A window of Chromium with an empty profile, as a context of playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        window = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(ARGUMENTS), headless=True, viewport=SIZE,  # type: ignore
            accept_downloads=True, timeout=PATIENCE)
        window.set_default_timeout(PATIENCE)
        try:
            yield window
        finally:
            window.close()


def until(page: Any, holds: Callable[[], object], seconds: float = PATIENCE / 1000) -> None:
    """Waits until `holds()` is true, while the page goes on; fails if it is not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        page.wait_for_timeout(50)


class Newcomer:
    """A person in front of a page of the studio.

    `client` is the server's side of the same page, which knows the camera.
    """

    def __init__(self, page: Any, client: Any, folder: Path):
        self.page, self.client, self.folder = page, client, folder

    def dismiss(self) -> None:
        """Closes viser's note that there is no GPU, which lies over the scene."""
        note = self.page.get_by_role("alert").get_by_role("button")
        if note.count():
            note.first.click()

    def where(self, x: float, y: float, z: float = 0.0) -> tuple[float, float]:
        """The pixel of the page at which a place of the scene is seen."""
        from viser.transforms import SO3

        camera, box = self.client.camera, self.canvas
        ahead = SO3(np.asarray(camera.wxyz)).as_matrix().T @ (np.array([x, y, z]) - camera.position)
        assert ahead[2] > 0, "the place is behind the camera"
        right, down = ahead[:2] / ahead[2] * box["height"] / 2 / np.tan(camera.fov / 2)
        return box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2 + down

    @property
    def canvas(self) -> dict[str, float]:
        """The rectangle of the page in which the scene is drawn."""
        boxes = [each.bounding_box() for each in self.page.locator("canvas").all()]
        return max((box for box in boxes if box), key=lambda box: box["width"] * box["height"])

    def drag(self, begin: tuple[float, ...], end: tuple[float, ...], steps: int = 5) -> None:
        """Drags with the mouse from one place of the scene to another."""
        mouse = self.page.mouse
        self.hover(*begin)
        mouse.down()
        self.see()
        for part in np.linspace(0, 1, steps + 1)[1:]:
            mouse.move(*self.where(*(np.array(begin) + part * (np.array(end) - begin))))
            self.see()
        mouse.up()

    def click(self, *place: float) -> None:
        """Clicks a place of the scene."""
        self.hover(*place)
        self.page.mouse.down()
        self.see()
        self.page.mouse.up()

    def hover(self, *place: float) -> None:
        """Moves the mouse to a place of the scene, and waits until the page has found what is under it."""
        self.page.mouse.move(*self.where(*place))
        self.see()

    def see(self) -> None:
        """Waits until the page has drawn what came before."""
        self.page.evaluate(TWO_FRAMES)

    def press(self, button: str) -> None:
        """Clicks a button once it lies still: a folder that opens moves those in it, and a click beside one is none."""
        found = self.page.get_by_role("button", name=button, exact=True).first
        found.wait_for()
        before = None
        while found.bounding_box() != before:
            before = found.bounding_box()
            self.page.wait_for_timeout(200)
        found.click()

    def choose(self, dropdown: str, option: str) -> None:
        """Opens the dropdown with a label and takes an option."""
        self.page.get_by_role("combobox", name=dropdown, exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()
