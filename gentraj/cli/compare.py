"""`gentraj compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..device import pick_device
from ..experiments.comparison_page import write_page
from ..experiments.comparison_work import is_measured, is_timed, prepare, step_time_path, time_group, train_and_measure
from ..experiments.entries import Entry, existing, planned, read_result, write_json
from ..experiments.groups import Group, plane
from ..experiments.measures import Options
from ..experiments.processes import Job, cpus, run_jobs
from ..experiments.summary import failures, record, summarize
from ..experiments.tables import tables
from ..families import FAMILIES
from ..plots.page import Table, show
from ..progress import say
from ..runs.folder import load, read_config
from ..training.checkpoint import has_checkpoints
from .common import check_folder


@dataclass(frozen=True)
class Compare:
    """Train families of models for the same time and measure stability, quality, coverage, speed, likelihood, control.

    Called again with the same options it goes on where it stopped, and measures nothing twice.

    Examples: gentraj compare pointmaze-umaze --families diffusion,flow --budget 5 --seeds 2;
    gentraj compare pointmaze --dataset D4RL/pointmaze/medium-v2; gentraj compare --runs runs/a runs/b
    """

    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = ()
    """Presets whose data, planner and training the families share, as in `gentraj train`."""
    runs: tuple[Path, ...] = ()
    """Run folders to compare as they are, instead of presets to train."""
    families: str = ",".join(FAMILIES)
    """Families with commas between them, as `gentraj train --family` knows them."""
    dataset: str | None = None
    """Another dataset than the preset's."""
    budget: float = 7.0
    """Minutes of each training. The steps that this makes are found by timing some, once for each family."""
    steps: int | None = None
    """Steps of each training, instead of the same time."""
    seeds: int = 3
    """Trainings of each family: seeds 0, 1, 2, .."""
    episodes: int = 50
    """Episodes in closed loop of each run."""
    num: int = 512
    """Trajectories to measure the quality by, as in `gentraj measure`."""
    processes: int | None = None
    """Runs trained and measured side by side, with one thread each; by default as many as there are CPUs."""
    out: Path = Path("runs/comparison")
    """Folder of the comparison: comparison.json, comparison.html, and what it is made of."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = tyro.cli(Compare, args=argv, prog="gentraj compare")
    check(args)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # here as in the processes, or what is timed would not be what they do
    try:
        comparison, page = compare(args)
    finally:
        torch.set_num_threads(threads)
    for name, group in comparison["groups"].items():
        print(text(tables(group, f"{name}, ")[0]))
    print(page)


def check(args: Compare) -> None:
    """Raises ValueError for options that do not go together, before any work."""
    if bool(args.presets) == bool(args.runs):
        raise ValueError("give presets to train or --runs DIR... to compare what is there; see gentraj compare --help")
    least = {"--seeds": (args.seeds, 1), "--episodes": (args.episodes, 1), "--steps": (args.steps or 1, 1),
             "--processes": (args.processes or 1, 1), "--num": (args.num, 8)}
    for option, (value, low) in least.items():
        if value < low:
            raise ValueError(f"{option} is {value}; give at least {low}")
    if not 0 < args.budget < 1e6:
        raise ValueError(f"--budget is {args.budget}; minutes above 0 are expected")
    check_folder(args.out, "--out")


def compare(args: Compare) -> tuple[dict[str, Any], Path]:
    """Everything; returns what comparison.json holds, and the page."""
    entries = existing(args.runs, args.out) if args.runs else planned(
        args.presets, [name.strip() for name in args.families.split(",")], args.seeds, args.out, args.dataset)
    entries, groups = prepared(entries, args)
    options, number = Options(args.episodes, args.num, args.device), args.processes or cpus()
    jobs = [Job(e.name, train_and_measure, (e, groups[e.group], options), lambda e=e: outcome(e)) for e in entries
            if not is_measured(e, groups[e.group], options)]
    codes = run_jobs(jobs, number, "runs")
    whole = [e for e in entries if record(e, codes.get(e.name, 0))["failure"] is None]
    if not whole:
        raise RuntimeError(f"all {len(entries)} runs failed; the first: {record(entries[0], 1)['failure']}")
    whole_of = {name: tuple(e for e in whole if e.group == name) for name in groups}
    untimed = [Job(name, time_group, (some, groups[name], options), lambda: "timed")
               for name, some in whole_of.items() if some and not is_timed(some, groups[name], options)]
    if failed := run_jobs(untimed, 1, "timing"):
        raise RuntimeError(f"timing {', '.join(failed)} failed; what was done is saved, and the same command goes on")
    comparison = {"settings": settings(args), "groups": {
        name: summarize([e for e in entries if e.group == name], group, codes) for name, group in groups.items()}}
    write_json(args.out / "comparison.json", comparison)
    for name, reason in failures(comparison):
        say(f"{name} failed: {reason}")
    return comparison, write_page(comparison, entries, groups, args.out, args.device)


def prepared(entries: Sequence[Entry], args: Compare) -> tuple[list[Entry], dict[str, Group]]:
    """The entries with their numbers of steps, and the groups with windows of their data."""
    groups, made = {}, []
    for entry in entries:
        if entry.config is None:
            groups[entry.group] = groups.get(entry.group) or group_of_run(entry, args.device)
        elif read_result(step_time_path(entry)) is None or entry.group not in groups:
            groups[entry.group] = prepare(entry, args.device)
            say(f"{entry.group}: {entry.family} takes {1000 * read_result(step_time_path(entry)):.3g} ms a step")
        made.append(with_steps(entry, args))
    return made, groups


def group_of_run(entry: Entry, device: str | None) -> Group:
    run = load(entry.folder, device=pick_device(device))
    group = Group(entry.group, entry.results.parent, plane(run.data))
    group.keep(run.reference)
    return group


def with_steps(entry: Entry, args: Compare) -> Entry:
    """An entry that is trained for the budget. Raises ValueError for a folder that holds another training."""
    if entry.config is None:
        return entry
    steps = args.steps or max(1, round(60 * args.budget / read_result(step_time_path(entry))))
    training = replace(entry.config.training, steps=steps, warmup=min(entry.config.training.warmup, steps // 10),
                       log_every=max(1, steps // 100), save_every=max(1, min(1000, steps // 8)))
    if has_checkpoints(entry.folder):
        there, asked = read_config(entry.folder)[0], (entry.config.dataset, steps)
        if (there.dataset, there.training.steps) != asked:
            raise ValueError(f"{entry.folder} is a training of {there.training.steps} steps on {there.dataset}, and "
                             f"these options make it {steps} on {asked[0]}; give those that the comparison was begun "
                             "with, or another --out")
    return replace(entry, config=replace(entry.config, training=training))


def outcome(entry: Entry) -> str:
    """A run in a line, when it is done."""
    found = record(entry)
    if found["failure"]:
        return f"failed: {found['failure']}"
    score = f", return {show(found['control']['return_mean'])}" if found["control"] else ""
    return f"done, {found['steps']} steps{score}"


def settings(args: Compare) -> dict[str, Any]:
    """What was asked for, for the head of the page."""
    if args.runs:
        return {"runs": [str(folder) for folder in args.runs], "episodes": args.episodes}
    data = {"dataset": args.dataset} if args.dataset else {}
    length = {"steps a training": args.steps} if args.steps else {"minutes a training": args.budget}
    return {"presets": list(args.presets), **data, "families": args.families, **length, "seeds": args.seeds,
            "episodes": args.episodes}


def text(table: Table) -> str:
    """A table as aligned text."""
    rows = [[show(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *lines])
