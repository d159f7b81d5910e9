"""The server of the studio, which only this machine reaches: one session for each browser."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .controls import Controls
from .loading import Loaded
from .session import Session

if TYPE_CHECKING:
    from viser import ClientHandle
import re
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from unittest.mock import patch

try:
    import viser
    import websockets.asyncio.server
except ImportError as error:
    raise ImportError("the studio needs viser, which is missing: pip install 'gentraj[studio]'") from error

OWN_PAGES = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


class LocalServer(viser.ViserServer):
    """A viser server that only this machine reaches, at `port` or the next free one; with 0 at any free one.

    Viser would take a websocket from every web page that a browser of this machine shows: this one takes those of pages
    of this machine only, by their `Origin`. Viser's public tunnels are switched off. Raises ValueError for what is no
    port.
    """

    def __init__(self, port: int = 0, label: str | None = None):
        if not 0 <= port <= 65535:
            raise ValueError(f"--port is {port}; a number from 0 to 65535 is expected")
        # Viser has no option for origins, and takes `serve` from its module while it is constructed.
        serve = partial(websockets.asyncio.server.serve, origins=[OWN_PAGES])
        with patch.object(websockets.asyncio.server, "serve", serve), redirect_stdout(StringIO()):  # it prints a box
            super().__init__("127.0.0.1", port, label, verbose=False)

    def stop(self) -> None:
        with redirect_stdout(StringIO()):  # which would say so
            super().stop()

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Returns None: a browser must not be able to publish the studio."""
        return None


class Studio:
    """Serves the runs at `url` until `stop`, each browser with a session of its own that ends when it leaves."""

    def __init__(self, loaded: Sequence[Loaded], port: int = 8080):
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")  # a browser left while it was drawn for
        self.loaded = loaded
        self.views: dict[int, Controls] = {}
        """The panels of the browsers that are connected, by viser's number of the client."""
        self.server = LocalServer(port, "gentraj studio")
        self.url = f"http://127.0.0.1:{self.server.get_port()}/"
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)

    def stop(self) -> None:
        """Ends the server and all sessions."""
        self.server.stop()
        for view in list(self.views.values()):
            view.session.close()
        self.views.clear()

    def _connect(self, client: ClientHandle) -> None:
        view = Controls(Session(self.loaded), client)
        client.camera.position, client.camera.look_at = view.camera
        self.views[client.client_id] = view
        if client.client_id not in self.server.get_clients():  # it left while its view was made
            self._disconnect(client)

    def _disconnect(self, client: ClientHandle) -> None:
        view = self.views.pop(client.client_id, None)
        if view is not None:
            view.session.close()
