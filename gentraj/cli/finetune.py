"""`gentraj finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from ..device import pick_device
from ..progress import say
from ..runs.finetuning import FinetuneConfig, finetune, returns
from ..runs.folder import load
from .common import RunFolder
from .environments import imports_again
from .options import parse
from .train import fresh_folder

SHOWN = 10  # episodes whose mean return is told, the first and the last


@dataclass(frozen=True)
class Finetune:
    """Fine-tune a policy with a critic in its environment, into a run of its own: half of what it learns from is its
    data, half what it plays.

    Examples: gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned;
    gentraj finetune runs/fql --steps 20000 --run-dir runs/fql-tuned --resume
    """

    run: RunFolder
    """The run of a policy, whose dataset is still there."""
    run_dir: Path
    """Folder of the fine-tuned run."""
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = field(default_factory=FinetuneConfig)
    resume: bool = False
    """Go on with the fine-tuning in --run-dir, after a kill: the same bits."""
    env_id: str | None = None
    """Environment: a Gymnasium id or a task name, by default the run's own. To evaluate there give it again."""
    device: str | None = None


def main(argv: list[str]) -> None:
    args = parse(Finetune, argv, "gentraj finetune")
    folder = args.run_dir if args.resume else fresh_folder(args.run_dir, "--resume")
    tuned = finetune(load(args.run, device=pick_device(args.device)), args.config, folder, env_id=args.env_id,
                     resume=args.resume)
    played = returns(folder)
    say(f"{len(played)} episodes played, with noise; mean return of the first {SHOWN} {played[:SHOWN].mean():.4g}, of "
        f"the last {played[-SHOWN:].mean():.4g}; after {tuned.step} updates the run is in {folder}")
    print(f"next: gentraj evaluate {folder}{imports_again()}{f' --env-id {quote(args.env_id)}' if args.env_id else ''}")
