"""A server of viser that only this machine reaches."""

from __future__ import annotations

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
            raise ValueError(f"the port is {port}; a number from 0 to 65535 is expected")
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
