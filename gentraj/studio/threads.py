"""The threads of a studio: `Latest` works on the newest request only, and `Player` repeats a step."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")
MOST_LATE = 0.2  # seconds that a player catches up


class Latest(Generic[Request]):
    """Calls `work` on requests in a thread of its own, one at a time.

    A request that is asked while another one is worked on waits, and replaces the one that waits already: of the
    places that a mouse passes, only the last one is planned for. The thread starts with the first request and ends
    with `close`. An exception of `work` is reported by `threading.excepthook`, and the next request is worked on.
    """

    def __init__(self, work: Callable[[Request], None], name: str):
        self.work = work
        self.waiting: list[Request] = []
        self.changed = threading.Condition()
        self.busy = False
        self.closed = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def ask(self, request: Request) -> None:
        """Has `request` worked on next. After `close` it is dropped."""
        with self.changed:
            if self.closed:
                return
            self.waiting = [request]
            if self.thread.ident is None:
                self.thread.start()
            self.changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is left to do, at most `timeout` seconds, and says whether that is so."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.waiting and not self.busy, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Ends the thread after the request that it is working on, for which it waits at most `timeout` seconds."""
        with self.changed:
            self.closed = True
            self.waiting = []
            self.changed.notify_all()
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self.changed:
                self.busy = False
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.waiting or self.closed)
                if self.closed:
                    return
                request = self.waiting.pop()
                self.busy = True
            try:
                self.work(request)
            except Exception:
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Player:
    """Calls `step` again and again in a thread of its own, from `play` to `pause` or `close`.

    `step` returns the seconds after which the next one is due. What was lost long ago is not caught up.
    """

    def __init__(self, step: Callable[[], float], name: str):
        self.step = step
        self.name = name
        self.closed = False
        self._goes_on = threading.Event()

    @property
    def playing(self) -> bool:
        return self._goes_on.is_set()

    def play(self) -> None:
        if not self.playing and not self.closed:
            self._goes_on = threading.Event()  # which a thread in its last step does not obey
            self._goes_on.set()
            threading.Thread(target=self._run, args=(self._goes_on,), name=self.name, daemon=True).start()

    def pause(self) -> None:
        self._goes_on.clear()

    def close(self) -> None:
        self.closed = True
        self.pause()

    def _run(self, goes_on: threading.Event) -> None:
        due = time.perf_counter()
        while goes_on.is_set():
            due = max(due + self.step(), time.perf_counter() - MOST_LATE)
            time.sleep(max(0.0, due - time.perf_counter()))
