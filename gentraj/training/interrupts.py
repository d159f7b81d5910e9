"""Ctrl-C and SIGTERM as requests that a loop sees between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(RuntimeError):
    """A training was stopped by a signal, after it had saved; `exit_code` is what a shell expects: 128 + signal."""

    def __init__(self, received: int, step: int):
        super().__init__(f"stopped by {signal.Signals(received).name} at step {step}, which is saved; "
                         "go on with --resume")
        self.exit_code = 128 + received


class Interrupts:
    """While the `with` block runs, `received` is the first signal that came. A Ctrl-C after it stops at once.

    Off the main thread, where Python allows no handlers, nothing is received. An ignored signal stays ignored (nohup).
    """

    received: int | None = None

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        heard = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._receive) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
