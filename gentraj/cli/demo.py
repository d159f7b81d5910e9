"""`gentraj demo`: the whole way, in minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from envs.evaluation.evaluate import EvaluationConfig

from ..device import pick_device
from ..progress import say
from ..runs.folder import train
from ..runs.presets import DEMO
from ..training.checkpoint import has_checkpoints
from .common import check_folder
from .evaluate import score, table
from .options import parse
from .report import make_report


@dataclass(frozen=True)
class Demo:
    """Data, training, evaluation and report on PointMaze-UMaze. Called again, it goes on where it stopped.

    Example: gentraj demo --run-dir runs/demo
    """

    run_dir: Path = Path("runs/demo")
    """Folder of the run."""
    steps: int = DEMO.training.steps
    """Training steps."""
    episodes: int = 50
    """Episodes of the evaluation."""
    seed: int = 0
    device: str | None = None


def main(argv: list[str]) -> None:
    args, began = parse(Demo, argv, "gentraj demo"), time.monotonic()
    check_folder(args.run_dir, "--run-dir")
    config = replace(DEMO, training=replace(DEMO.training, steps=args.steps, seed=args.seed))
    run = train(config, args.run_dir, resume=has_checkpoints(args.run_dir), device=pick_device(args.device))
    say(f"trained; {time.monotonic() - began:.0f} s so far. Evaluating {args.episodes} episodes")
    scores = score(run, EvaluationConfig(episodes=args.episodes, seed=args.seed))
    page = make_report(run)
    print(table(scores))
    print(f"report: {page} ({time.monotonic() - began:.0f} s in all)")
