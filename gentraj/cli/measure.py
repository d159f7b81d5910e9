"""`gentraj measure`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from ..data import Windows
from ..files import write_file
from ..randomness import fold, generator
from ..report_page import show
from ..runs import Run, load, read_data
from ..trajectory import Batch, Condition
from .common import RunFolder, check_output, pick_device, say
from .ruler import Ruler

MEASURES = "measures.json"
LEAST = 8  # trajectories, for the metrics that look at five neighbours
ROWS = 64  # sampled between two steps of the progress bar

UNITS = {  # std: standard deviations of the data, as a root mean square over a trajectory; env: of the environment
    "precision": "share", "recall": "share", "density": "1 where alike", "coverage": "share",
    "sliced_wasserstein": "std", "mmd": "0 where alike", "frechet_distance": "std^2",
    "two_sample_accuracy": "0.5 where alike", "novelty": "std, to the nearest other window that the run keeps",
    "condition_error": "env, largest", "smoothness": "env/step^2, mean", "walls_share": "of trajectories",
    "walls_worst": "env, depth", "observations_share": "of trajectories", "observations_worst": "env, beyond the data",
    "actions_share": "of trajectories", "actions_worst": "env, beyond the bounds", "row_error": "env, mean",
    "row_error_p95": "env, 95 % are below", "replay_error": "env, mean over rows", "replay_error_last": "env, last row"}


@dataclass(frozen=True)
class Measure:
    """Measure how good a planner's trajectories are, beside data: what is nearest to the column `data` is best.

    One half of the windows is what all else is compared with. The other half is the column `data`, and gives the
    conditions under which as many trajectories are sampled: a perfect model would score what it scores. row_error is
    how far the simulator, set to a row of a plan, is from the next one after the plan's actions, replay_error how far
    it is after all actions from the first row on; smoothness and these are of the goal's entries where there are any.

    Example: gentraj measure runs/demo --num 256
    """

    run: RunFolder
    """A run folder."""
    dataset: str | None = None
    """Windows of this dataset, such as held-out episodes; by default those of the training data that the run keeps."""
    num: int = 512
    """Trajectories to sample under each condition; fewer where there are not twice as many windows."""
    steps: int | None = None
    """Sampling steps; by default the model's own."""
    seed: int = 0
    """Seed of the choice of windows and of the samples."""
    out: Path | None = None
    """File to write; RUN/measures.json by default."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = tyro.cli(Measure, args=argv, prog="gentraj measure")
    path = args.out or args.run / MEASURES
    run = load(args.run, device=pick_device(args.device))
    check_output(path, "--out")
    measured = measure_run(run, dataset=args.dataset, num=args.num, steps=args.steps, seed=args.seed)
    write_file(path, json.dumps(measured, indent=2, allow_nan=False).encode())
    say(f"measures in {path}")
    print(table(measured))


def measure_run(run: Run, *, dataset: str | None = None, num: int = 512, steps: int | None = None, seed: int = 0,
                progress: bool = True) -> dict[str, Any]:
    """What measures.json holds: step, seed, steps, dataset, num, and `measures` as {column: {name: number or None}}.

    The columns are "data", "start" (the first observation known) and, where there are goals, "start and goal" (the
    goal's entries of the last row too). `units` are those of each name, `left_out` says why others are not there.
    Raises ValueError for too few trajectories or windows, for a policy, and what `load_episodes` raises.
    """
    if num < LEAST:
        raise ValueError(f"--num is {num}; at least {LEAST} trajectories are needed to compare them with data")
    _ = run.planning  # a policy has no trajectories to measure, and says so
    windows, train = choose_windows(run, dataset, 2 * num, seed)
    num = len(windows.x_BHD) // 2
    real, other = windows.x_BHD[:num], windows.x_BHD[num : 2 * num]
    ruler = Ruler(run, real, seed)
    columns = {"data": ruler.measure(other, train, own=dataset is None)}
    for name, every in conditions(run, windows).items():
        condition = every[num : 2 * num]
        x_RHD = sample(run, condition, steps, seed, f"sampling, {name} known", progress)
        columns[name] = ruler.measure(x_RHD, train, condition)
    return {"step": run.step, "seed": seed, "steps": steps, "dataset": dataset or "reference windows", "num": num,
            "measures": columns, "units": {name: UNITS.get(name, "") for name in columns["start"]},
            "left_out": ruler.left_out}


def choose_windows(run: Run, dataset: str | None, most: int, seed: int) -> tuple[Batch, Tensor]:
    """Up to `most` different windows without padding, in random order, and all that the run keeps of training.

    On the CPU. Raises ValueError where there are too few.
    """
    x_RHD = run.reference.x_BHD.cpu()[run.reference.mask_BHD.cpu().flatten(1).all(1)]
    train = torch.unique(x_RHD, dim=0)  # windows are drawn with replacement
    if dataset is None:
        order = torch.randperm(len(train), generator=generator(seed))[:most]
        windows = Batch(train[order], torch.ones_like(train[order], dtype=torch.bool))
    else:
        windows = _dataset_windows(run, dataset, most, seed)
    if len(windows.x_BHD) < 2 * LEAST:
        spec = run.model.spec
        raise ValueError(f"{dataset or run.folder}: only {len(windows.x_BHD)} windows of {spec.horizon} rows, "
                         f"{spec.spacing} steps apart, lie whole in an episode; at least {2 * LEAST} are needed, give "
                         "a --dataset of longer or more episodes")
    return windows, train


def _dataset_windows(run: Run, dataset: str, most: int, seed: int) -> Batch:
    (episodes, _), spec = read_data(replace(run.config, dataset=dataset)), run.model.spec
    windows = Windows(episodes, spec, run.config.context)
    first, ends = np.arange(len(windows)), windows.window_ends
    last, end = first + spec.times[-1], ends[np.searchsorted(ends, first, "right")]  # where there is no action any more
    whole = np.flatnonzero(last < end if spec.act_dim else last <= end)
    return windows.gather(np.random.default_rng(seed).permutation(whole)[:most])


def conditions(run: Run, windows: Batch) -> dict[str, Condition]:
    """What is known of these windows, by name: the start, and the goal where the run has one."""
    obs_RHO, goal_dims = run.model.spec.split(windows.x_BHD)[0], list(run.planning.goal_dims)
    unknown = replace(Condition.unknown(run.model.spec, len(obs_RHO)), context_BC=windows.context_BC)
    start = unknown.with_obs(0, obs_RHO[:, 0])
    if not goal_dims:
        return {"start": start}
    return {"start": start, "start and goal": start.with_obs(-1, obs_RHO[:, -1, goal_dims], goal_dims)}


def sample(run: Run, condition: Condition, steps: int | None, seed: int, title: str, progress: bool = True) -> Tensor:
    """(R, H, D) one trajectory for each of R conditions, on the CPU."""
    parts, condition = [], condition.to(run.model.device)
    for i in tqdm(range(0, condition.batch, ROWS), desc=title, unit=" batches", disable=not progress):
        rows = condition[i : i + ROWS]
        seeds = [fold(seed, i + r) for r in range(rows.batch)]
        parts.append(run.model.sample(rows, seed=seeds, steps=steps)[:, 0].cpu())
    return torch.cat(parts)


def table(measured: dict[str, Any]) -> str:
    """The measures as text, a column for the data and for each condition."""
    columns = measured["measures"]
    lines = [f"{measured['num']} trajectories a column, {measured['dataset']}, step {measured['step']}",
             f"{'':22}" + "".join(f"{name:>16}" for name in columns) + "  unit"]
    for name, unit in measured["units"].items():
        lines.append(f"{name:22}" + "".join(f"{show(column[name]):>16}" for column in columns.values()) + f"  {unit}")
    return "\n".join([*lines, *(f"no {name}: {why}" for name, why in measured["left_out"].items())])
