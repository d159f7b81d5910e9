"""Real processes that begin at once: each is forked from one that has imported gentraj, which takes seconds."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from typing import IO
from unittest.mock import patch

from gentraj.process import IMPORTS

# An optimiser imports torch._dynamo when it is made, in a second and a half.
PRELOADED = ["torch._dynamo", "gentraj.cli.train", "gentraj.runs.kinds.folder", "gentraj.data.sources", "small"]


def context():
    """Of the processes. The one that they are forked from begins with the first of them, and ends with this one. What a
    test asks to be imported is not imported in the processes of later tests."""
    found = get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ):
        os.environ.pop(IMPORTS, None)
        forkserver.ensure_running()
    return found


class Forked:
    """A process that calls `work(*arguments)`, a function of a module, in this working directory and environment.

    What the function returns is its exit code. It is used as a `subprocess.Popen` whose output is piped as text.
    """

    def __init__(self, work: Callable[..., int | None], *arguments: object):
        (out, its_out), (err, its_err) = (context().Pipe(duplex=False) for _ in range(2))
        self.process = context().Process(
            target=_begin, args=(its_out, its_err, os.getcwd(), dict(os.environ), work, arguments))
        self.process.start()
        its_out.close()
        its_err.close()
        self.stdout, self.stderr = (_text(each) for each in (out, err))
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def communicate(self) -> tuple[str, str]:
        """Waits for the end. The output must fit into the buffers of pipes, 64 KiB each."""
        self.wait()
        return self.stdout.read(), self.stderr.read()

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the process if it still runs."""
        self.kill()
        self.wait()
        self.stdout.close()
        self.stderr.close()


def _text(pipe: Connection) -> IO[str]:
    with pipe:
        return os.fdopen(os.dup(pipe.fileno()))


def _begin(out: Connection, err: Connection, folder: str, environment: dict[str, str],
           work: Callable[..., int | None], arguments: tuple[object, ...]) -> None:
    for pipe, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(pipe.fileno(), stream.fileno())
        pipe.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(work(*arguments))
