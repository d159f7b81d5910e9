"""A client of the studio without a browser: it speaks viser's protocol over a websocket, with any headers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import viser
import zstandard
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

CAMERA = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, -5.0, 5.0), "fov": 1.0, "near": 0.1, "far": 100.0,
          "image_height": 480, "image_width": 640, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0)}


class Browserless:
    """A websocket to the studio at `port` that is open when it is made; `messages` are what the studio sent.

    By default it has the headers that a page of the studio sends. Raises PermissionError with the studio's line if the
    studio refuses it.
    """

    def __init__(self, port: int, *, host: str = "", origin: str | None = "", path: str = "/", cookie: str = ""):
        self.messages: list[dict[str, Any]] = []
        host = host or f"127.0.0.1:{port}"
        headers = {"Cookie": cookie}
        if origin is not None:
            headers["Origin"] = origin or f"http://{host}"
        tcp = socket.create_connection(("127.0.0.1", port), timeout=20)
        try:
            self.socket = connect(f"ws://{host}{path}", sock=tcp, additional_headers=headers, max_size=None,
                                  subprotocols=[f"viser-v{viser.__version__}"])  # type: ignore[list-item]
        except InvalidStatus as error:
            tcp.close()
            raise PermissionError((error.response.body or b"").decode().strip()) from error
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def send(self, kind: str, **fields: Any) -> None:
        """Sends one message of viser's protocol; a `ViewerCameraMessage` needs no fields."""
        fields = fields or (CAMERA if kind == "ViewerCameraMessage" else {})
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def close(self) -> None:
        self.socket.close()
        self.reader.join(20)

    def __enter__(self) -> Browserless:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for data in self.socket:
                assert isinstance(data, bytes)
                size = int.from_bytes(data[8:16], "little")
                self.messages += msgspec.msgpack.decode(zstandard.decompress(data[16 : 16 + size]))["messages"]


def opened(port: int) -> Browserless:
    """A client that is connected as a browser is."""
    browser = Browserless(port)
    browser.send("ViewerCameraMessage")
    return browser


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Waits until `holds()` is true; fails if it is not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
