"""`gentraj train`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..presets import PRESETS
from ..runs import RunConfig, read_config
from ..runs import train as train_run
from .common import pick_device, say


@dataclass(frozen=True)
class Train:
    """Train a trajectory model and all that its planner needs, into a run folder.

    Examples: gentraj train pointmaze-umaze --steps 3000 --run-dir runs/umaze;
    gentraj train pointmaze --dataset D4RL/pointmaze/medium-v2; gentraj train --resume runs/umaze
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    preset: Annotated[str | None, tyro.conf.Positional] = None
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
    preset = next((word for word in argv[:1] if word in PRESETS), None)
    resumed = _value(argv, "--resume")
    default = read_config(Path(resumed))[0] if resumed else PRESETS[preset or "pointmaze"]
    args = tyro.cli(Train, args=argv, prog="gentraj train", default=Train(default, preset))
    if (args.preset is None) == (args.resume is None):
        raise ValueError(f"give a preset ({', '.join(PRESETS)}) or --resume DIR; see gentraj train --help")
    if args.preset is not None and args.preset not in PRESETS:
        near = difflib.get_close_matches(args.preset, PRESETS, n=1)
        raise ValueError(f"unknown preset '{args.preset}'; known: {', '.join(PRESETS)}"
                         + (f"; did you mean '{near[0]}'?" if near else ""))
    if args.resume and args.run_dir:
        raise ValueError("--resume names the run's folder already; leave --run-dir out")
    short = {key: value for key, value in (("steps", args.steps), ("seed", args.seed)) if value is not None}
    config = replace(args.config, training=replace(args.config.training, **short))
    if not config.dataset:
        raise ValueError(f"preset '{args.preset}' needs --dataset ID_OR_FILE; `gentraj data list` shows those here")
    folder = args.resume or args.run_dir or Path("runs") / str(args.preset)
    run = train_run(config, folder, resume=args.resume is not None, device=pick_device(args.device))
    say(f"trained {run.step} steps; the run is in {folder}")
    print(f"next: gentraj evaluate {folder}")


def _value(argv: list[str], option: str) -> str | None:
    """The value of an option before the real parsing, which needs it for its defaults."""
    for i, word in enumerate(argv):
        if word == option and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
