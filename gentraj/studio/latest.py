"""`Latest`: a thread that works on the newest request only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Latest(Generic[Request]):
    """Calls `work` on requests in a thread of its own, one at a time.

    A request that is asked while another one is worked on waits, and replaces the one that waits already: of the
    places that a mouse passes, only the last one is planned for. The thread starts with the first request and ends
    with `close`. An exception of `work` is reported by `threading.excepthook`, and the next request is worked on.
    """

    def __init__(self, work: Callable[[Request], None], name: str):
        self.work, self.name = work, name
        self.waiting: list[Request] = []
        self.changed, self.busy, self.closed = threading.Condition(), False, False
        self.thread: threading.Thread | None = None

    def ask(self, request: Request) -> None:
        """Has `request` worked on next. After `close` it is dropped."""
        with self.changed:
            if self.closed:
                return
            self.waiting = [request]
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self.thread.start()
            self.changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do, at most `timeout` seconds, and says whether that is so."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.waiting and not self.busy, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Ends the thread after the request that it is working on, for which it waits at most `timeout` seconds."""
        with self.changed:
            self.closed, self.waiting = True, []
            self.changed.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.busy = False
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.waiting or self.closed)
                if self.closed:
                    return
                request, self.busy = self.waiting.pop(), True
            try:
                self.work(request)
            except Exception:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
