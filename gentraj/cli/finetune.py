"""`gentraj finetune`: training a policy further in its environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from ..device import pick_device
from ..progress import print_saved, say
from ..runs.finetuning import FinetuneConfig, finetune, returns
from ..runs.folder import load
from .environments import imports_again
from .options import Device, RunPath, parse
from .train import fresh_folder

SHOWN = 10  # number, at most, of first and of last episodes whose mean return is printed


@dataclass(frozen=True)
class Finetune:
    """Continue to train a policy in its environment, and write the result as a new run. The policy must have a critic.

    Half of every batch comes from the policy's dataset and half from the episodes that it runs in the environment.

    Examples: gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned
              gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned --resume
    """

    run: RunPath
    """The run folder of a policy whose dataset is still available."""
    run_dir: Path
    """Folder that the fine-tuned run is written to."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = field(default_factory=FinetuneConfig)
    resume: bool = False
    """Continue an interrupted fine-tuning in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the run's own. Give it again to `gentraj evaluate`."""
    device: Device = None


def main(argv: list[str]) -> None:
    args = parse(Finetune, argv, "gentraj finetune")
    folder = args.run_dir if args.resume else fresh_folder(args.run_dir, "--resume")
    tuned = finetune(load(args.run, device=pick_device(args.device)), args.config, folder, env_id=args.env_id,
                     resume=args.resume)
    gained = returns(folder)
    shown = max(1, min(SHOWN, len(gained) // 2))
    say(f"{len(gained)} episodes played, with noise; mean return {gained[:shown].mean():.4g} of the first {shown} and "
        f"{gained[-shown:].mean():.4g} of the last {shown}; after {tuned.step} updates the run is in {folder}")
    named = f" --env-id {quote(args.env_id)}" if args.env_id else ""
    print_saved(f"next: gentraj evaluate {quote(str(folder))}{imports_again()}{named}")
