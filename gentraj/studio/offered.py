"""What a browser may send: the values that its panel offers, and places that are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from viser import GuiApi


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


def check_place(place: Sequence[float] | np.ndarray, count: int = 2) -> np.ndarray:
    """Returns a place of `count` coordinates as an array (count,) of floats. Raises ValueError for anything else."""
    try:
        found = np.asarray(place, float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ValueError(f"the place is {shown(place)}; {count} finite numbers are expected")
    return found


def shown(value: object) -> str:
    """The beginning of a value, in one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
