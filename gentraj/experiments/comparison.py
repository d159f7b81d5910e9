"""A whole comparison, as `gentraj compare` makes it: runs, comparison.json and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..families import FAMILIES
from ..files import check_folder
from .compare import compare, existing, planned, to_measure, to_train
from .compare_measures import Options
from .compare_page import write_page
from .engine import write_json
from .pools import pool_of

FOR_TRAINING = ("families", "dataset", "budget", "steps", "seeds")  # settings of presets that are trained


@dataclass(frozen=True)
class CompareConfig:
    """Which families of models or which existing runs are compared, and how."""

    presets: tuple[str, ...] = ()
    """Presets of planners, as in `gentraj train`; all families share the data, the planner and the training of a
    preset."""
    runs: tuple[Path, ...] = ()
    """Existing run folders to compare, instead of presets to train."""
    families: str = ",".join(FAMILIES)
    """Families of models to compare, separated by commas; they are the values of `gentraj train --model`."""
    dataset: str | None = None
    """The dataset, as in `gentraj train`; by default the preset's."""
    budget: float = 7.0
    """Minutes of each training. The number of training steps is found by timing some steps of each family."""
    steps: int | None = None
    """Number of steps of each training, instead of --budget."""
    seeds: int = 3
    """Number of trainings of each family, with the seeds 0, 1, 2 and so on."""
    episodes: int = 50
    """Number of episodes in which each run is evaluated."""
    num: int = 512
    """Number of trajectories that are sampled to measure the quality of samples, as in `gentraj measure`."""
    jobs: int | None = None
    """Number of runs in parallel, with one thread each; by default the number of CPUs."""
    ray: tuple[str, ...] | None = None
    """Run on Ray (extra scale): at an address such as auto or host:6379, or without one on a cluster of this
    machine."""
    out: Path = Path("runs/comparison")
    """Folder that the runs, comparison.json and comparison.html are written to."""
    device: str | None = None
    """A PyTorch device such as cuda or mps; by default the accelerator if there is one, else the CPU."""


def compare_families(config: CompareConfig) -> tuple[dict[str, Any], Path]:
    """Trains and measures what is not done yet; returns the contents of comparison.json and the path of the page.

    Steps are timed, and everything is measured, with one thread, as in the processes that train. Raises ValueError for
    settings that contradict each other or are out of range, before any work.
    """
    check(config)
    pool = pool_of(config.out, config.jobs, config.ray)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = Options(config.episodes, config.num, config.device)
        if config.runs:
            tasks, groups = to_measure(existing(config.runs), config.out, options)
        else:
            families = [name.strip() for name in config.families.split(",")]
            configs = planned(config.presets, families, config.dataset)
            tasks, groups = to_train(configs, config.seeds, config.budget, config.steps, config.out, options)
        results = compare(tasks, groups, pool, options)
        comparison = {"settings": settings(config), "groups": results}
        write_json(config.out / "comparison.json", comparison)
        return comparison, write_page(comparison, tasks, groups, config.out, config.device)
    finally:
        torch.set_num_threads(threads)


def check(config: CompareConfig) -> None:
    """Raises ValueError for options that contradict each other or are out of range, before any work."""
    if bool(config.presets) == bool(config.runs):
        raise ValueError("give presets to train, or --runs DIR... to compare existing runs; see gentraj compare --help")
    given = [name for name in FOR_TRAINING if getattr(config, name) != getattr(CompareConfig, name)]
    if config.runs and given:
        raise ValueError(f"--{given[0]} is for presets that are trained, and --runs names existing runs; leave one of "
                         "them out")
    if {"budget", "steps"} <= {*given}:
        raise ValueError("--budget and --steps both say how long to train; give one of them")
    least = {"--seeds": (config.seeds, 1), "--episodes": (config.episodes, 1), "--steps": (config.steps, 1),
             "--num": (config.num, 8)}
    for option, (value, low) in least.items():
        if value is not None and value < low:
            raise ValueError(f"{option} is {value}; give at least {low}")
    if not 0 < config.budget < 1e6:
        raise ValueError(f"--budget is {config.budget}; minutes above 0 are expected")
    check_folder(config.out, "--out")


def settings(config: CompareConfig) -> dict[str, Any]:
    """The options that the head of the page shows."""
    if config.runs:
        return {"runs": [str(folder) for folder in config.runs], "episodes": config.episodes}
    data = {"dataset": config.dataset} if config.dataset else {}
    length = {"steps a training": config.steps} if config.steps else {"minutes a training": config.budget}
    return {"presets": list(config.presets), **data, "families": config.families, **length, "seeds": config.seeds,
            "episodes": config.episodes}
