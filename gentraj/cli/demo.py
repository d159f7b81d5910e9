"""`gentraj demo`: everything once, in minutes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from ..config import settings
from ..device import pick_device
from ..files import check_folder
from ..progress import counted, print_saved, say
from ..runs.kinds.presets import DEMO
from ..runs.learn.training import train
from ..training.checkpoint import has_checkpoints
from .options import Command, Device


@settings
class Demo(Command):
    """Record data of PointMaze-UMaze, train a planner on them, evaluate it and write a report, in minutes.

    If the demo was interrupted, the same command continues it.

    Example: gentraj demo --run-dir runs/demo
    """

    run_dir: Path = Path("runs/demo")
    """Folder that the run is written to."""
    steps: int = DEMO.training.steps
    """Number of training steps."""
    episodes: int = 50
    """Number of episodes of the evaluation."""
    seed: int = 0
    """Seed of the training and of the evaluation."""
    device: Device = None

    def __call__(self) -> None:
        start = time.monotonic()
        check_folder(self.run_dir, "--run-dir")
        config = replace(DEMO, training=replace(DEMO.training, steps=self.steps, seed=self.seed))
        run = train(config, folder=self.run_dir, resume=has_checkpoints(self.run_dir), device=pick_device(self.device))
        say(f"trained; {time.monotonic() - start:.0f} s so far. Evaluating {counted(self.episodes, 'episodes')}")
        scores = run.evaluate(episodes=self.episodes, seed=self.seed)
        page = run.report()
        print_saved(scores)
        print_saved(f"report: {page} ({time.monotonic() - start:.0f} s in all)")
