"""The server of the studio: one session for each browser."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any

from ..progress import one_line
from .controls import Controls
from .loading import Loaded
from .session import Session


class Studio:
    """Serves the runs at `url` until `stop`, each browser with a session of its own that ends when it leaves.

    Only pages of the studio itself are answered, and only programs of this machine reach it unless `host` is another
    address; then `url` holds a token that a browser must know. Raises ImportError without viser, and ValueError for an
    address that nothing can listen on.
    """

    def __init__(self, loaded: Sequence[Loaded], port: int = 8080, host: str = "127.0.0.1"):
        from .guard import GuardedServer  # with viser, which may be missing

        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")  # a browser left while it was drawn for
        self.loaded = list(loaded)
        self.views: dict[int, Controls] = {}
        """The panels of the browsers that are connected, by viser's number of the client."""
        self.lock = threading.Lock()
        self.stopped = False
        self.server = GuardedServer(host, port, "gentraj studio")
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)

    @property
    def url(self) -> str:
        """The address that a browser of this machine opens."""
        return self.server.url

    def stop(self) -> None:
        """Ends all sessions and the server."""
        with self.lock:
            self.stopped = True
            views = list(self.views.values())
            self.views.clear()
        for view in views:
            view.close()
        self.server.stop()

    def _connect(self, client: Any) -> None:
        try:
            session = Session(self.loaded)
            view = Controls(client.gui, client.scene, session, client)
        except (ValueError, RuntimeError) as error:
            client.gui.add_markdown(f"**{one_line(error)}**")
            return
        client.camera.position, client.camera.look_at = view.camera
        with self.lock:
            self.views[client.client_id] = view
            gone = self.stopped or client.client_id not in self.server.get_clients()
        if gone:  # it left while its view was made
            self._disconnect(client)

    def _disconnect(self, client: Any) -> None:
        with self.lock:
            view = self.views.pop(client.client_id, None)
        if view is not None:
            view.close()
