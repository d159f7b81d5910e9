"""`gentraj compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..experiments import compare as experiment
from ..experiments.compare_page import tables, write_page
from ..experiments.engine import write_json
from ..experiments.measures import Options
from ..experiments.processes import cpus
from ..families import FAMILIES
from ..runs.model_card import markdown_table
from .common import check_folder
from .options import parse


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
    args = parse(Compare, argv, "gentraj compare")
    check(args)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # here as in the processes, or what is timed would not be what they do
    try:
        comparison, page = compare(args)
    finally:
        torch.set_num_threads(threads)
    for name, group in comparison["groups"].items():
        table = tables(group, f"{name}, ")[0]
        print(f"{table.title}\n\n{markdown_table(table.columns, table.rows)}\n")
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
    options = Options(args.episodes, args.num, args.device)
    if args.runs:
        tasks, groups = experiment.to_measure(experiment.existing(args.runs), args.out, options)
    else:
        configs = experiment.planned(args.presets, [name.strip() for name in args.families.split(",")], args.dataset)
        tasks, groups = experiment.to_train(configs, args.seeds, args.budget, args.steps, args.out, options)
    found = experiment.compare(tasks, groups, args.processes or cpus(), options)
    comparison = {"settings": settings(args), "groups": found}
    write_json(args.out / "comparison.json", comparison)
    return comparison, write_page(comparison, tasks, groups, args.out, args.device)


def settings(args: Compare) -> dict[str, Any]:
    """What was asked for, for the head of the page."""
    if args.runs:
        return {"runs": [str(folder) for folder in args.runs], "episodes": args.episodes}
    data = {"dataset": args.dataset} if args.dataset else {}
    length = {"steps a training": args.steps} if args.steps else {"minutes a training": args.budget}
    return {"presets": list(args.presets), **data, "families": args.families, **length, "seeds": args.seeds,
            "episodes": args.episodes}
