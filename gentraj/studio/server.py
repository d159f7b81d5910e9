"""The server of the studio: one session for each browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .controls import Controls
from .loading import Loaded
from .session import Session


class Studio:
    """Serves the runs on this machine's own address until `stop`.

    Raises ImportError without viser, and ValueError for a port that is in use.
    """

    def __init__(self, loaded: Sequence[Loaded], port: int = 8080, host: str = "127.0.0.1"):
        try:
            import viser
        except ImportError as error:
            raise ImportError("the studio needs viser, which is missing: pip install 'gentraj[studio]'") from error
        self.loaded = list(loaded)
        self.views: dict[int, Controls] = {}
        self.server = viser.ViserServer(host=host, port=port, label="gentraj studio", verbose=False)
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)

    @property
    def url(self) -> str:
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def stop(self) -> None:
        for view in self.views.values():
            view.close()
        self.server.stop()

    def _connect(self, client: Any) -> None:
        self.views[client.client_id] = Controls(client.gui, client.scene, Session(self.loaded), client)

    def _disconnect(self, client: Any) -> None:
        if (view := self.views.pop(client.client_id, None)) is not None:
            view.close()
