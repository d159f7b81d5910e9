"""Trainings of all kinds are killed by SIGKILL at random moments and resumed: they end with the bits of others that
were never interrupted."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from .bits import fingerprint
from .trainings import KINDS, prepare

ROOT = Path(__file__).parents[2]
KILLS = 50
PATIENCE = 300  # seconds that a training may take; the tiny ones take a few


def run(seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Kills trainings at least `KILLS` times and each kind at least once, or for so many minutes.

    Each trial kills one training once or twice, and a new process brings it to its end. Raises AssertionError, with
    kind, moments and differences, for one that does not end as the uninterrupted one.
    """
    rng, deadline = random.Random(seed), time.monotonic() + 60 * minutes
    in_child(prepare, folder)
    order = rng.sample(list(KINDS), len(KINDS))
    whole: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    kills, trials = Counter[str](), 0
    while (kills.total() < KILLS or len(kills) < len(order)) and time.monotonic() < deadline:
        kind = order[trials % len(order)]
        if kind not in whole:
            began = time.monotonic()
            in_child(KINDS[kind], folder, folder / f"{kind}-whole")
            seconds[kind], whole[kind] = time.monotonic() - began, fingerprint(folder / f"{kind}-whole")
        place = folder / f"{kind}-{trials}"
        moments = killed(kind, folder, place, [rng.uniform(0, seconds[kind]) for _ in range(rng.choice((1, 1, 2)))])
        finish(kind, folder, place)
        compare(f"{kind}, killed {', '.join(f'{moment:.3f} s' for moment in moments)} after it began, seed {seed}, "
                f"trial {trials}", whole[kind], fingerprint(place))
        kills[kind] += len(moments)
        trials += 1
    return {"kills": kills.total(), "of_kills": KILLS,
            "kinds": len(kills), "of_kinds": len(KINDS), "trainings": trials, "differ": 0}


def in_child(function: Any, *args: Any) -> None:
    """Calls the function in a fork of this process, so that this one stays as it is."""
    child = started(function, *args)
    child.join(PATIENCE)
    hung = child.is_alive()
    child.kill()
    assert child.exitcode == 0, f"{function} {args}: " + ("takes too long" if hung else f"exit code {child.exitcode}")


def started(function: Any, *args: Any) -> BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=single_threaded, args=(function, *args))
    child.start()
    return child


def single_threaded(function: Any, *args: Any) -> None:
    torch.set_num_threads(1)
    function(*args)


def killed(kind: str, data: Path, place: Path, moments: list[float]) -> list[float]:
    """Trains into `place` and kills the process at each moment, in seconds after its start, resuming in between.

    Returns the moments at which a process was killed: a resumed training may be at its end before.
    """
    done = []
    for moment in moments:
        child = started(KINDS[kind], data, place)
        child.join(moment)
        child.kill()
        child.join()
        if child.exitcode == -signal.SIGKILL:
            done.append(moment)
        else:
            assert child.exitcode == 0, f"{kind}: exit code {child.exitcode} when it went on after {done}"
    return done


def finish(kind: str, data: Path, place: Path) -> None:
    """Brings the training to its end in a new process, whose strings hash differently."""
    command = [sys.executable, "-m", "benchmarks.soak.trainings", str(data), kind, str(place)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    assert done.returncode == 0, f"{kind} in {place} cannot be resumed: {done.stderr[-2000:]}"


def compare(what: str, expected: tuple, found: tuple) -> None:
    names = ("tensors", "rows of metrics", "learning curve")
    wrong = [name for name, one, other in zip(names, expected, found, strict=True) if one != other]
    assert not wrong, f"{what}: other {', '.join(wrong)} than the uninterrupted training: {expected} != {found}"
