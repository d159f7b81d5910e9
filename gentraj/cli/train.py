"""`gentraj train`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..checkpoint import has_checkpoints
from ..presets import PRESETS
from ..runs import RunConfig, read_config
from ..runs import train as train_run
from .common import check_folder, pick_device, say


@dataclass(frozen=True)
class Train:
    """Train a trajectory model and all that its planner needs, into a run folder.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze;
    gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2; gentraj train --resume runs/umaze
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """pointmaze-open, -umaze, -medium, -large, or pointmaze for any PointMaze dataset; options below change it."""
    run_dir: Path | None = None
    """Folder of the run; runs/PRESET by default."""
    resume: Path | None = None
    """Go on with the training in this folder; its settings are those it was started with."""
    steps: int | None = None
    """Training steps; short for --training.steps."""
    seed: int | None = None
    """Seed; short for --training.seed."""
    device: str | None = None
    """Such as cuda or mps; the accelerator where there is one by default."""


def main(argv: list[str]) -> None:
    guess = next((word for word in argv if word in PRESETS), "pointmaze")  # enough for --help
    which = tyro.cli(Train, args=argv, prog="gentraj train", default=Train(PRESETS[guess]))
    # Once more, now that it is known whose settings are the defaults: options may stand before the preset.
    args = tyro.cli(Train, args=argv, prog="gentraj train", default=Train(_defaults(which)))
    short = {key: value for key, value in (("steps", args.steps), ("seed", args.seed)) if value is not None}
    config = replace(args.config, training=replace(args.config.training, **short))
    if not config.dataset:
        raise ValueError(f"preset '{args.preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    folder = args.resume or fresh_folder(args.run_dir or Path("runs") / str(args.preset))
    run = train_run(config, folder, resume=args.resume is not None, device=pick_device(args.device))
    say(f"trained {run.step} steps; the run is in {folder}")
    print(f"next: gentraj evaluate {folder}")


def _defaults(which: Train) -> RunConfig:
    """The settings of the preset, or of the run that goes on. Raises ValueError unless it is one of them."""
    if (which.preset is None) == (which.resume is None):
        raise ValueError(f"give a preset ({', '.join(PRESETS)}) or --resume DIR; see gentraj train --help")
    if which.resume is not None:
        if which.run_dir is not None:
            raise ValueError("--resume names the run's folder already; leave --run-dir out")
        return read_config(which.resume)[0]
    if which.preset not in PRESETS:
        near = difflib.get_close_matches(str(which.preset), PRESETS, n=1)
        raise ValueError(f"unknown preset '{which.preset}'; known: {', '.join(PRESETS)}"
                         + (f"; did you mean '{near[0]}'?" if near else ""))
    return PRESETS[which.preset]


def fresh_folder(folder: Path) -> Path:
    """A folder for a new run, looked at before any data are read or recorded. Raises ValueError for a used one."""
    if has_checkpoints(folder):
        raise ValueError(f"{folder} holds a training already; go on with --resume {folder}, or give another --run-dir")
    check_folder(folder, "--run-dir")
    return folder
