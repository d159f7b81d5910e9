"""Locks and full disks with real processes; test_cli_faults.py kills and stops them."""

from __future__ import annotations

import time
from pathlib import Path

from tiny import run_tiny

from gentraj.training.checkpoint import load, run_lock


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
    process = spawn(tmp_path / "run", 300, 0.0, largest.stat().st_size - 1)
    _, errors = process.communicate()
    assert process.returncode == 1 and "optimizer" in largest.name
    assert f"{tmp_path}/run/step-00000020: cannot be written: File too large; " in errors
    assert "bytes are needed" in errors and "are free" in errors and "Traceback" not in errors
    assert load(tmp_path / "run").step == 0 and not list((tmp_path / "run").glob(".tmp-*"))
