"""Measures plans, training steps and policy updates of gentraj beside its peers.

    python -m benchmarks.speed --out benchmarks/results/speed/cpu.json
    python -m benchmarks.speed --cases 'plan/hopper/*' --backends openvino
    python -m benchmarks.speed --cases 'update/*' --backends bf16 compile
    python -m benchmarks.speed --results benchmarks/results/speed/cpu.json --table docs/performance.md
    python -m benchmarks.speed --device cuda --cases '*' --out cuda.json --table docs/performance.md

The peer is Diffuser's U-Net and its schedulers in `diffusers`, with the same sizes and threads. Each round runs the
peer and all variants of gentraj by turns. Printed are the median time, and the median over the rounds of the peer's
time over the variant's (above 1, gentraj is faster), with the quartiles. On a CPU, times are CPU times of the process,
in which a neighbour on the machine shows least. On a GPU, the memory of each is measured, too. Networks are untrained:
their weights do not change the time.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json

import numpy as np
import torch
import tyro

from benchmarks.speed_cases import CASES
from benchmarks.speed_peers import Call, Case, Setup
from gentraj.config import read_json
from gentraj.files import check_output, write_file
from gentraj.plots.page import markdown_table

ROOT = Path(__file__).parents[1]
PACKAGES = ("gentraj", "torch", "numpy", "diffusers", "openvino")
FEWEST_ROUNDS = 3  # however long they take
BLOCK = re.compile(r"(<!-- speed: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Summary = dict[str, float]  # low (first quartile), median, high (third quartile)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    cases: tuple[str, ...] = ("plan/*", "ddim/*", "guided/*", "train/*")
    """Names of cases, with wildcards as in a shell; --list prints them."""
    backends: tuple[str, ...] | None = None
    """Backends of gentraj.accelerate beside eager; None is openvino and openvino-bf16 on a CPU, and compile elsewhere.
    compile also compiles training steps, and bf16 is for updates."""
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


# -- measuring


def chosen(patterns: tuple[str, ...]) -> dict[str, Case]:
    """The cases that match; raises ValueError for a pattern that no case matches."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in CASES):
            raise ValueError(f"no case matches '{pattern}'; known: {', '.join(CASES)}")
    return {name: case for name, case in CASES.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def clock(device: torch.device) -> float:
    """Seconds: CPU time of the process, in which a neighbour shows least; on another device wall time."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def by_turns(calls: Mapping[str, Call], rounds: int, seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call in each round, in which one call follows the other; the first round is not counted.

    There are at most `rounds` rounds, and no more once `seconds` have passed, but at least three.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.monotonic()
    for i in range(rounds + 1):
        if i > FEWEST_ROUNDS and time.monotonic() - began > seconds:
            break
        for name, call in calls.items():
            start = clock(device)
            call()
            if i:
                times[name].append(clock(device) - start)
    return times


def summary(values: Sequence[float] | np.ndarray) -> Summary:
    """Median and quartiles, to four digits."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {name: float(f"{value:.4g}") for name, value in (("low", low), ("median", median), ("high", high))}


def beside_peers(case: Case, setup: Setup, rounds: int, seconds: float) -> dict[str, Any]:
    """Times in ms of the peers and of gentraj's variants, and the speed-ups of each variant beside each peer.

    Where there is no peer, the variants stand beside eager.
    """
    peers = {name: build(setup) for name, build in case.peers.items()}
    calls = peers | dict(case.ours(setup))
    times = by_turns(calls, rounds, seconds, setup.device)
    ms = {name: 1000 * np.array(each) for name, each in times.items()}
    variants = [name for name in ms if name not in peers]
    speedup = {peer: {name: summary(ms[peer] / ms[name]) for name in variants} for peer in peers or ["eager"]}
    return {"title": case.title, "peers": list(peers), "rounds": len(ms["eager"]),
            "ms": {name: summary(each) for name, each in ms.items()}, "speedup": speedup,
            "mebibytes": memory(calls, setup.device)}


def memory(calls: Mapping[str, Call], device: torch.device) -> dict[str, int]:
    """The most MiB of a GPU that are in use in each call, with the networks of all of them; nothing elsewhere."""
    found = dict[str, int]()
    if device.type == "cuda":
        for name, call in calls.items():
            torch.cuda.reset_peak_memory_stats(device)
            call()
            found[name] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, device, threads, versions of packages, date and commit."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True,
                         text=True, check=False)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _processor(), "capability": torch.backends.cpu.get_cpu_capability(), "gpu": gpu,
            "device": str(device), "threads": torch.get_num_threads(), "python": platform.python_version(),
            "versions": found, "date": time.strftime("%Y-%m-%d"), "commit": git.stdout.strip() or None}


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured(options: Options) -> Iterator[dict[str, Any]]:
    """The results so far, after each case."""
    device, backends = torch.device(options.device), options.backends
    if backends is None:
        backends = ("openvino", "openvino-bf16") if device.type == "cpu" else ("compile",)
    setup = Setup(backends, device)
    found: dict[str, Any] = {"machine": machine(setup.device), "cases": {}}
    for name, case in chosen(options.cases).items():
        found["cases"][name] = beside_peers(case, setup, options.rounds, options.seconds)
        print("\n".join(lines(name, found["cases"][name])), flush=True)
        yield found


def lines(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    """What is printed of a case."""
    for variant, ms in found["ms"].items():
        beside = "".join(f"  {peer} {interval(speedups[variant])}" for peer, speedups in found["speedup"].items()
                         if variant in speedups)
        yield f"{name:20}{variant:16}{ms['median']:10.1f} ms{beside}"


# -- the tables of docs/performance.md


def with_tables(found: Mapping[str, Any], text: str, name: str = "the page") -> str:
    """The text of a page with the tables between its marks: those of the CPU, or that of another device.

    Raises ValueError for a page without such marks.
    """
    if not BLOCK.search(text):
        raise ValueError(f"{name} has no marks <!-- speed: TABLE --> and <!-- end --> around a table; known tables: "
                         f"{', '.join(TABLES)}")

    def filled(match: re.Match[str]) -> str:
        if (match[2] == "device") == (found["machine"]["device"] == "cpu"):
            return match[0]  # which is of other results
        return f"{match[1]}{TABLES[match[2]](found)}\n{match[3]}"

    return BLOCK.sub(filled, text)


def machine_text(found: Mapping[str, Any]) -> str:
    """Where, when and with what it was measured."""
    at = found["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in at["versions"].items()
                         if number is not None and name in ("torch", "diffusers", "openvino"))
    return (f"Measured on {at['date']} at commit {at['commit']}, CPU threads: {at['threads']}, of {at['cpu']} "
            f"({at['capability']}),\n{packages}, by `python -m benchmarks.speed`.")


def peers_table(found: Mapping[str, Any]) -> str:
    """The speed-ups beside the peers."""
    cases = [case for case in found["cases"].values() if case["peers"]]
    variants = list(dict.fromkeys(name for case in cases for name in case["ms"] if name not in case["peers"]))
    rows = []
    for case in cases:
        ratios = [", ".join(interval(each[name]) for each in case["speedup"].values() if name in each)
                  for name in variants]
        rows.append([case["title"], ", ".join(case["peers"]), number(case["ms"]["eager"]["median"]), *ratios])
    return markdown_table(["work", "compared with", "ms, eager", *variants], rows)


def device_table(found: Mapping[str, Any]) -> str:
    """The times on a device, the speed-ups beside `diffusers`, and the memory; with where they were measured."""
    at = found["machine"]
    rows = []
    for case in found["cases"].values():
        ms, beside = case["ms"], case["speedup"].get("diffusers", {})
        times = [number(ms[name]["median"]) if name in ms else "" for name in ("eager", "compile")]
        ratios = [interval(beside[name]) if name in beside else "" for name in ("eager", "compile")]
        rows.append([case["title"], *times, *ratios, str(case["mebibytes"].get("eager", ""))])
    heads = ["work", "ms, eager", "ms, compile", "diffusers / eager", "diffusers / compile", "MiB, eager"]
    return (f"Measured on {at['date']} at commit {at['commit']} on {at['gpu'] or at['device']}, torch "
            f"{at['versions']['torch']}.\n\n{markdown_table(heads, rows)}")


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def interval(one: Mapping[str, float]) -> str:
    """Median and quartiles."""
    return f"{one['median']:.2f} ({one['low']:.2f}-{one['high']:.2f})"


TABLES = {"machine": machine_text, "peers": peers_table, "device": device_table}


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
        write_file(options.table, with_tables(found, options.table.read_text(), str(options.table)).encode())
        print(f"tables in {options.table}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
