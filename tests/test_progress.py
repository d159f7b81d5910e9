"""Progress: a bar on a terminal, a line now and then in a file, nothing on stdout, nothing of what is done at once."""

from __future__ import annotations

import os
import pty
import sys
import termios
import time

import pytest

from gentraj import progress
from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No work takes two seconds in a test."""
    monkeypatch.setattr(progress, "SHOW_AFTER", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "REDRAW_EVERY", 0.01)


def test_without_a_terminal_progress_is_whole_lines_on_stderr(hurried: None, capsys: pytest.CaptureFixture) -> None:
    with progress.bar(3, "training", initial=1) as bar:
        bar.set_postfix_str("loss 0.5", refresh=False)
        bar.update()
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err and err.endswith("\n")
    assert "training: 2/3 steps, " in err and "loss 0.5" in err


def test_what_is_done_in_two_seconds_shows_no_progress(capsys: pytest.CaptureFixture) -> None:
    with progress.bar(3, "training") as bar, progress.busy("exporting"):
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_line_comes_every_thirty_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    now = [time.time()]
    with progress.bar(100, "training") as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = now[0]
        for _ in range(100):
            now[0] += 1.0
            bar.update()
    assert [line[:19] for line in capsys.readouterr().err.splitlines()] == [
        "training: 30/100 st", "training: 60/100 st", "training: 90/100 st"]


def test_the_time_left_follows_from_the_time_of_the_units_before(monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    now = [time.time()]
    with progress.bar(4, "compare", "jobs") as bar:
        bar._time = lambda: now[0]
        bar.start_t = bar.last_print_t = now[0]
        for seconds in range(1, 601):  # a job takes five minutes, and the bar is redrawn meanwhile
            now[0] += 1.0
            bar.update(seconds % 300 == 0)
    assert capsys.readouterr().err.splitlines()[-1] == "compare: 2/4 jobs, 10:00 elapsed, 10:00 left"


def test_a_call_that_cannot_be_counted_says_that_it_runs(hurried: None, capsys: pytest.CaptureFixture) -> None:
    with progress.busy("exporting to x.onnx"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "exporting to x.onnx ...\n"


def test_on_a_terminal_the_bar_is_redrawn(hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 100))
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.bar(2, "training") as bar:
            bar.update()
            progress.say("a word between")
    drawn = ""
    while "a word between" not in drawn:  # a read returns what has arrived
        drawn += os.read(parent, 10_000).decode()
    os.close(parent)
    assert "\r" in drawn and "training" in drawn


def test_what_an_episode_leaves_over_by_its_early_end_is_not_to_be_done(hurried: None,
                                                                        capsys: pytest.CaptureFixture) -> None:
    lengths = rollout(RandomAgent([-3], [3]), environment_factory("InvertedPendulum-v5"), 3,
                      settings=RolloutSettings(num_envs=2)).lengths
    n = lengths.sum()
    assert lengths.max() < 1000 and f" {n}/{n} steps, " in capsys.readouterr().err
