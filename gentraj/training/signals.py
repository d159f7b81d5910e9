"""Ctrl-C and SIGTERM as requests to stop, which a loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(RuntimeError):
    """The training saved and stopped after a signal. `exit_code` is 128 + signal, as shells expect."""

    def __init__(self, received: int, step: int):
        super().__init__(f"stopped by {signal.Signals(received).name} at step {step}, which is saved; "
                         "go on with --resume")
        self.exit_code = 128 + received


class Interrupts:
    """Turns Ctrl-C and SIGTERM into requests that a loop reads between two steps.

    While the `with` block runs, `received` is the first signal that arrived, or None. A further Ctrl-C stops at once.

    No signal is received outside the main thread, where Python allows no handlers. Signals that are ignored, as under
    nohup, stay ignored.
    """

    received: int | None = None

    def __enter__(self) -> Interrupts:
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._receive) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
