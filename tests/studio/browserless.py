"""A client of the studio without a browser: it speaks viser's protocol over a websocket."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CAMERA = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, -5.0, 5.0), "fov": 1.0, "near": 0.1, "far": 100.0,
          "image_height": 480, "image_width": 640, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}


class Browserless:
    """A page of `origin` at the studio, by default its own; `messages` are what the studio sent."""

    def __init__(self, port: int, origin: str | None = "http://localhost:9000"):
        self.messages: list[dict[str, Any]] = []
        self.socket = connect(f"ws://127.0.0.1:{port}", origin=origin, max_size=None,  # type: ignore[arg-type]
                              subprotocols=[f"viser-v{viser.__version__}"])  # type: ignore[list-item]
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.send("ViewerCameraMessage", **CAMERA)

    def send(self, kind: str, **fields: Any) -> None:
        """Sends one message of viser's protocol."""
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def close(self) -> None:
        self.socket.close()
        self.reader.join(20)

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for data in self.socket:
                assert isinstance(data, bytes)
                size = int.from_bytes(data[8:16], "little")
                self.messages += msgspec.msgpack.decode(zstandard.decompress(data[16 : 16 + size]))["messages"]


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Waits until `holds()` is true; fails if it is not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def drag(browser: Browserless, node: str, place: tuple[float, float, float]) -> None:
    """Drags a node of the scene to a place, as a browser reports it."""
    until(lambda: any(each["type"] == "SetSceneNodeDragBindingsMessage" and each["name"] == node
                      for each in list(browser.messages)))
    owner = next(each["owner"] for each in browser.messages if each["type"] == "SetSceneNodeDragBindingsMessage")
    for phase in ("start", "update", "end"):
        browser.send("SceneNodeDragMessage", phase=phase, name=node, instance_index=None, start_position=place,
                     start_screen_pos=(0.5, 0.5), end_position=place, end_screen_pos=(0.5, 0.5), button="left",
                     modifier=None, owner=owner)
