"""What every experiment is made of: failures of tasks, processes that end when they should."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Forked, context

from gentraj.experiments import engine, pools
from gentraj.experiments.engine import write_json
from gentraj.experiments.pools import Job, LocalProcesses, run_jobs


def never_end(path: Path) -> None:
    """It does not heed SIGTERM, as a worker in a long step does not."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    path.write_text(str(os.getpid()))
    time.sleep(1000)


def run_endless_job(path: Path) -> None:
    run_jobs([Job("job", never_end, (path,), str)], LocalProcesses(1, saving=0.1))


def test_what_another_command_failed_to_do_meanwhile_is_no_failure_of_this_one(tmp_path: Path,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands may be started on one folder; the later one gives up after a minute and writes why."""
    task: Any = SimpleNamespace(folder=tmp_path, name="task")
    monkeypatch.setattr(engine, "_do", lambda *_: write_json(tmp_path / "failures.json", {"task": "is training here"}))
    engine.work([task], "cpu")
    assert not (tmp_path / "failures.json").exists()


def test_processes_say_how_they_ended(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are forked from a process that has imported everything."""
    monkeypatch.setattr(pools, "get_context", lambda _: context())
    jobs = [Job("good", print, (), lambda: "fine"), Job("bad", int, ("x",), lambda: "never printed")]
    run_jobs(jobs, LocalProcesses(2))
    err = capsys.readouterr().err
    assert "good: fine" in err and "bad: ended with code 1" in err and "never printed" not in err


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with Forked(run_endless_job, pid) as parent:
        wait_until(lambda: pid.exists() and pid.read_text())
        parent.kill()
    wait_until(lambda: not is_alive(int(pid.read_text())))


def is_alive(pid: int) -> bool:
    """A process that has ended and that nobody has asked for its code is none."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(what) -> None:
    """Waits for an event. The test's own time limit ends it."""
    while not what():
        time.sleep(0.05)
