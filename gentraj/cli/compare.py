"""`gentraj compare`: families of models, trained and measured side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..experiments import compare as experiment
from ..experiments.compare_measures import Options
from ..experiments.compare_page import tables, write_page
from ..experiments.engine import write_json
from ..experiments.processes import cpus
from ..families import FAMILIES
from ..plots.page import markdown_table
from .common import check_folder
from .options import parse


@dataclass(frozen=True)
class Compare:
    """Train families of models for the same time, and compare their stability, samples, speed, likelihood and control.

    Existing runs can be compared instead with --runs. The same command continues an interrupted comparison and measures
    nothing twice.

    Examples: gentraj compare pointmaze-umaze --families diffusion,flow --budget 5 --seeds 2
              gentraj compare pointmaze --dataset D4RL/pointmaze/medium-v2
              gentraj compare --runs runs/a runs/b
    """

    presets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = ()
    """Presets of planners, as in `gentraj train`; all families share the data, the planner and the training of a
    preset."""
    runs: tuple[Path, ...] = ()
    """Existing run folders to compare, instead of presets to train."""
    families: str = ",".join(FAMILIES)
    """Families of models to compare, separated by commas; they are the values of `gentraj train --family`."""
    dataset: str | None = None
    """The dataset, as in `gentraj train`; by default the preset's."""
    budget: float = 7.0
    """Minutes of each training. The number of training steps is found by timing some steps of each family."""
    steps: int | None = None
    """Number of steps of each training, in the place of --budget."""
    seeds: int = 3
    """Number of trainings of each family, with the seeds 0, 1, 2 and so on."""
    episodes: int = 50
    """Number of episodes in which each run is evaluated."""
    num: int = 512
    """Number of trajectories by which the samples are measured, as in `gentraj measure`."""
    processes: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    out: Path = Path("runs/comparison")
    """Folder that the runs, comparison.json and comparison.html are written to."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def main(argv: list[str]) -> None:
    args = parse(Compare, argv, "gentraj compare")
    check(args)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that train, so that their steps are timed correctly
    try:
        comparison, page = compare(args)
    finally:
        torch.set_num_threads(threads)
    for name, group in comparison["groups"].items():
        table = tables(group, f"{name}, ")[0]
        print(f"{table.title}\n\n{markdown_table(table.columns, table.rows)}\n")
    print(page)


def check(args: Compare) -> None:
    """Raises ValueError for options that contradict each other or are out of range, before any work."""
    if bool(args.presets) == bool(args.runs):
        raise ValueError("give presets to train, or --runs DIR... to compare existing runs; see gentraj compare --help")
    least = {"--seeds": (args.seeds, 1), "--episodes": (args.episodes, 1), "--steps": (args.steps or 1, 1),
             "--processes": (args.processes or 1, 1), "--num": (args.num, 8)}
    for option, (value, low) in least.items():
        if value < low:
            raise ValueError(f"{option} is {value}; give at least {low}")
    if not 0 < args.budget < 1e6:
        raise ValueError(f"--budget is {args.budget}; minutes above 0 are expected")
    check_folder(args.out, "--out")


def compare(args: Compare) -> tuple[dict[str, Any], Path]:
    """Runs the comparison; returns the contents of comparison.json and the path of the page."""
    options = Options(args.episodes, args.num, args.device)
    if args.runs:
        tasks, groups = experiment.to_measure(experiment.existing(args.runs), args.out, options)
    else:
        configs = experiment.planned(args.presets, [name.strip() for name in args.families.split(",")], args.dataset)
        tasks, groups = experiment.to_train(configs, args.seeds, args.budget, args.steps, args.out, options)
    results = experiment.compare(tasks, groups, args.processes or cpus(), options)
    comparison = {"settings": settings(args), "groups": results}
    write_json(args.out / "comparison.json", comparison)
    return comparison, write_page(comparison, tasks, groups, args.out, args.device)


def settings(args: Compare) -> dict[str, Any]:
    """The options that the head of the page shows."""
    if args.runs:
        return {"runs": [str(folder) for folder in args.runs], "episodes": args.episodes}
    data = {"dataset": args.dataset} if args.dataset else {}
    length = {"steps a training": args.steps} if args.steps else {"minutes a training": args.budget}
    return {"presets": list(args.presets), **data, "families": args.families, **length, "seeds": args.seeds,
            "episodes": args.episodes}
