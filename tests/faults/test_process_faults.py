"""Kills, signals, locks and full disks with real processes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tiny import run_tiny

from gentraj.training.checkpoint import load, run_lock
from gentraj.training.log import read_metrics

ROOT = Path(__file__).parents[2]
TRIALS = int(os.environ.get("GENTRAJ_TRIALS", "2"))  # of kills at random moments; 50 before a release


@pytest.mark.parametrize("trial", range(TRIALS))
def test_killed_at_random_and_resumed_gives_the_same_bits(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
                                                          spawn, fingerprint, trial: int) -> None:
    rng, folder, whole = random.Random(trial), tmp_path / "run", tmp_path_factory.getbasetemp() / "never-killed"
    if not whole.exists():
        run_tiny(whole, steps=200)
    for kill in range(1 + trial % 2):
        process = spawn(folder, 200, 0.02, kill > 0)
        assert process.stdout.readline(), process.stderr.read()  # it trains
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    run_tiny(folder, steps=200, resume=True)
    assert fingerprint(folder) == fingerprint(whole)


def test_terminated_it_saves_after_the_step_and_says_so(tmp_path: Path, spawn) -> None:
    """It is halted while its step is looked up: a row is logged every 15 steps."""
    process = spawn(tmp_path, 10**6, 0.005)
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)
    logged = read_metrics(tmp_path)[-1]["step"]
    process.terminate()
    process.send_signal(signal.SIGCONT)
    line = process.stderr.readline()
    assert logged <= load(tmp_path).step <= logged + 16
    assert f"stopped by SIGTERM at step {load(tmp_path).step}, which is saved" in line
    assert process.wait() == 143


def test_of_two_in_one_folder_one_trains(tmp_path: Path, spawn) -> None:
    """A killed holder leaves no lock behind."""
    both = [spawn(tmp_path, 10**6, 0.005) for _ in range(2)]
    while all(process.poll() is None for process in both):
        time.sleep(0.02)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    assert loser.returncode == 2 and f"process {winner.pid} is training here" in loser.stderr.read()
    winner.stdout.readline()
    winner.kill()
    winner.wait()
    with run_lock(tmp_path):
        assert load(tmp_path).step >= 0


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path, spawn) -> None:
    """No file may grow beyond the optimiser's at step 20, but for its last byte (RLIMIT_FSIZE)."""
    run_tiny(tmp_path / "whole", steps=20)
    largest = max((tmp_path / "whole" / "step-00000020").iterdir(), key=lambda path: path.stat().st_size)
    process = spawn(tmp_path / "run", 300, 0.0, False, largest.stat().st_size - 1)
    _, errors = process.communicate()
    assert process.returncode == 1 and "optimizer" in largest.name
    assert f"{tmp_path}/run/step-00000020: cannot be written: File too large; " in errors
    assert "bytes are needed" in errors and "are free" in errors and "Traceback" not in errors
    assert load(tmp_path / "run").step == 0 and not list((tmp_path / "run").glob(".tmp-*"))
