"""Measures gentraj beside its peers, how its costs grow, and the memory that planning takes.

    python -m benchmarks.speed --growth --memory --out benchmarks/results/speed/cpu.json
    python -m benchmarks.speed --cases 'plan/hopper/*' --backends openvino --diffuser ../diffuser
    python -m benchmarks.speed --results benchmarks/results/speed/cpu.json --table docs/performance.md

The peers are the U-Net and the schedulers of `diffusers`, and a checkout of Diffuser where --diffuser names one, with
the same channels, steps and threads. Each round runs the peers and all variants of gentraj by turns. Printed are the
median time, and the median over the rounds of a peer's time over the variant's (above 1, gentraj is faster), with the
quartiles. On a CPU, times are CPU times of the process, in which a neighbour on the machine shows least. Networks are
untrained: their weights do not change the time.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json

import numpy as np
import torch
import tyro

from benchmarks import speed_cases, speed_growth, speed_memory
from benchmarks.speed_page import interval, write_tables
from benchmarks.timing import Call, Case, PeerMissing, Setup, by_turns, machine, summary
from gentraj.config import read_json
from gentraj.files import check_output, write_file

# The cases of all modules: a module with cases of its own adds its dict here.
CASES: dict[str, Case] = {**speed_cases.CASES}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[str, ...] = ("*",)
    """Names of cases, with wildcards as in a shell; --list prints them."""
    backends: tuple[str, ...] = ("openvino", "openvino-bf16")
    """Backends of gentraj.accelerate beside eager; compile also compiles the training steps."""
    diffuser: Path | None = None
    """A checkout of github.com/jannerm/diffuser, which is imported from there."""
    growth: bool = False
    """Also measure how the costs grow with horizon, batch, candidates, environments and dataset."""
    memory: bool = False
    """Also measure the memory that planning adds to the imports, in processes of their own."""
    rounds: int = 9
    """The most rounds of each case, after one that is not counted."""
    seconds: float = 10.0
    """No more rounds of a case begin after this time, but there are at least three."""
    threads: int = 1
    """CPU threads."""
    device: str = "cpu"
    """The PyTorch device of the cases."""
    out: Path | None = None
    """A JSON file for the results, which is written anew after each case."""
    results: Path | None = None
    """Measure nothing, and read the results from this file."""
    table: Path | None = None
    """A page with marks, such as docs/performance.md, into which the tables of the results are written."""
    list: bool = False
    """Print the names of the cases, and measure nothing."""


def chosen(patterns: tuple[str, ...]) -> dict[str, Case]:
    """The cases that match; raises ValueError for a pattern that no case matches."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            raise ValueError(f"no case matches '{pattern}'; known: {', '.join(CASES)}")
    return {name: case for name, case in CASES.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def beside_peers(case: Case, setup: Setup, rounds: int, seconds: float) -> dict[str, Any]:
    """Times in ms of the peers and of gentraj's variants, and the speed-ups of each variant beside each peer."""
    peers: dict[str, Call] = {}
    for name, build in case.peers.items():
        try:
            peers[name] = build(setup)
        except PeerMissing as missing:
            print(f"  {name} is left out: {missing}", file=sys.stderr)
    ms = {name: 1000 * np.array(times)
          for name, times in by_turns(peers | dict(case.ours(setup)), rounds, seconds, setup.device).items()}
    speedup = {peer: {name: summary(ms[peer] / own) for name, own in ms.items() if name not in peers} for peer in peers}
    return {"title": case.title, "peers": list(peers), "rounds": len(next(iter(ms.values()))),
            "ms": {name: summary(times) for name, times in ms.items()}, "speedup": speedup}


def lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    for variant, ms in found["ms"].items():
        beside = "".join(f"  {peer} {interval(speedups.get(variant))}" for peer, speedups in found["speedup"].items()
                         if variant in speedups)
        yield f"{name:20}{variant:16}{ms['median']:10.1f} ms{beside}"


def measured(options: Options) -> Iterator[dict[str, Any]]:
    """The results so far, after each case."""
    setup = Setup(options.backends, options.diffuser, torch.device(options.device))
    found: dict[str, Any] = {"machine": machine(setup.device), "cases": {}, "growth": {},
                             "command": shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]])}
    for name, case in chosen(options.cases).items():
        found["cases"][name] = beside_peers(case, setup, options.rounds, options.seconds)
        print("\n".join(lines(name, found["cases"][name])), flush=True)
        yield found
    for kind, growth in speed_growth.GROWTH.items() if options.growth else ():
        found["growth"][kind] = speed_growth.measured(growth, options.rounds, options.seconds)
        print(f"growth with {kind:20}", found["growth"][kind]["exponents"], flush=True)
        yield found
    if options.memory:
        found["memory"] = speed_memory.measured(options.backends)
        print(f"memory: {json.dumps(found['memory'])}", flush=True)
        yield found


def main(options: Options) -> None:
    if options.list:
        print("\n".join(f"{name:20}{case.title}" for name, case in CASES.items()))
        return
    if options.out is not None:
        check_output(options.out, "--out")
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    for found in measured(options) if options.results is None else [read_json(options.results)]:
        if options.out is not None:
            write_file(options.out, (json.dumps(found, indent=1) + "\n").encode())
    if options.table is not None:
        print(f"tables in {write_tables(found, options.table)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
