"""The server of the studio: one session for each browser of this machine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .controls import Controls
from .loading import Loaded
from .local_server import LocalServer
from .session import Session

if TYPE_CHECKING:
    from viser import ClientHandle


class Studio:
    """Serves the runs at `url` until `stop`, each browser with a session of its own that ends when it leaves."""

    def __init__(self, loaded: Sequence[Loaded], port: int = 8080):
        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")  # a browser left while it was drawn for
        warnings.filterwarnings("ignore", "no recorded way")  # which the page says
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
