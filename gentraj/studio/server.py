"""The server of the studio: one session for each browser."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..progress import one_line
from .controls import Controls
from .loading import Loaded
from .planning import shown
from .session import Session

if TYPE_CHECKING:
    from viser import GuiApi


class Studio:
    """Serves the runs at `url` until `stop`, each browser with a session of its own that ends when it leaves.

    Only pages of the studio itself are answered, and only programs of this machine reach it unless `host` is another
    address; then `url` holds a token that a browser must know. Raises ImportError without viser, and ValueError for an
    address that nothing can listen on.
    """

    def __init__(self, loaded: Sequence[Loaded], port: int = 8080, host: str = "127.0.0.1"):
        from .guard import GuardedServer  # with viser, which may be missing

        warnings.filterwarnings("ignore", "Queued a .* on a closed connection")  # a browser left while it was drawn for
        warnings.filterwarnings("ignore", r"\[viser\] .* does not match annotation")  # the session refuses what it sent
        self.loaded = list(loaded)
        self.views: dict[int, Controls] = {}
        """The panels of the browsers that are connected, by viser's number of the client."""
        self.lock, self.stopped = threading.Lock(), False
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
            self.stopped, views = True, list(self.views.values())
            self.views.clear()
        for view in views:
            view.close()
        self.server.stop()

    def _connect(self, client: Any) -> None:
        try:
            session = Session(self.loaded)
            take_only_what_is_offered(client.gui, session.fail)
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


def take_only_what_is_offered(gui: GuiApi, refuse: Callable[[ValueError], None]) -> None:
    """Makes the panel of one browser take a value only if the control offers it, and no uploads.

    Of a slider these are the numbers from its one end to the other, of a dropdown its options. A page of the studio
    sends no others. For another value the control stays as it is, and `refuse` gets the error.
    """
    from viser import _messages

    socket, take = gui._websock_interface, gui._handle_gui_updates

    async def checked(client_id: Any, message: Any) -> None:
        try:
            check_update(gui._gui_input_handle_from_uuid, message.uuid, message.updates)
        except ValueError as error:
            refuse(error)
        else:
            await take(client_id, message)

    socket.unregister_handler(_messages.GuiUpdateMessage, take)
    socket.register_handler(_messages.GuiUpdateMessage, checked)
    for kind in (_messages.FileTransferStartUpload, _messages.FileTransferPart):  # which would be kept in memory
        socket.unregister_handler(kind)


def check_update(controls: dict[str, Any], number: object, updates: object) -> None:
    """Raises ValueError unless `updates` is a value that the control of this number offers.

    A control that is gone is none of `controls`; what is sent to it is not looked at.
    """
    if not isinstance(number, str) or not isinstance(updates, dict) or set(updates) != {"value"}:
        raise ValueError("the browser changes something else than the value of a control; reload its page")
    if (control := controls.get(number)) is None:
        return
    value, options = updates["value"], getattr(control, "options", None)
    low, high = getattr(control, "min", None), getattr(control, "max", None)
    if options is not None:
        known, expected = value in options, f"one of {', '.join(options)}"
    elif isinstance(control.value, bool):
        known, expected = isinstance(value, bool), "true or false"
    else:
        known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        known = known and (low is None or low <= value) and (high is None or value <= high)
        expected = f"a number from {low} to {high}"
    if not known:
        raise ValueError(f"{control.label} is {shown(value)}; {expected} is expected")
