"""`gentraj steer`: an actor over the noise of a trained run, which makes it act better and leaves its weights alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ..config import settings
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.kinds.loading import load
from ..runs.kinds.policy_run import PolicyRunConfig
from ..runs.kinds.run import Run
from ..runs.learn.steering import steer, steered_settings
from .options import Device, Given, RunPath, Training, load_trained, named, print_settings
from .train import fresh_folder, next_command

OF_RUN = {"roadmap", "context", "history", "past_actions"}  # settings that are those of the run


@settings
class Steer(Training):
    """Steer a trained policy, or a planner for returns, to a higher return: train an actor over the noise that it
    samples from.

    Its weights are frozen and stored in the new run, a policy that every other command takes; gentraj finetune improves
    it further in the environment. Every setting is an option, such as --dataset ID (by default the data of the run),
    --policy.bound 1.5 or --steps 5000 (short for --training.steps); `gentraj steer RUN --help` lists them.

    Examples: gentraj steer runs/bc-flow --run-dir runs/steered
              gentraj steer runs/bc-flow --dataset hopper-medium.hdf5 --steps 5000 --seed 1 --run-dir runs/steered
              gentraj steer runs/bc-flow --run-dir runs/steered --resume
    """

    SHORT: ClassVar[Mapping[str, str]] = {**Training.SHORT, "out": "run_dir"}

    run: RunPath
    """The folder of a policy or a planner, as `gentraj train` or `gentraj distill` writes it."""
    run_dir: Annotated[Path, tyro.conf.arg(aliases=("--out",))]
    """Folder that the steered run is written to."""
    resume: bool = False
    """Continue an interrupted steering in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    device: Device = None

    def __call__(self) -> None:
        run = load_trained(self.run, self.device)
        config = self._settings(run, self.given)
        if not self.resume:
            fresh_folder(self.run_dir, "--resume")
        steered = steer(run, config, self.run_dir, resume=self.resume, device=pick_device(self.device))
        say(f"trained {steered.step} steps; the steered run is in {self.run_dir}")
        print_saved(next_command(steered, self.run_dir))

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None] | None:
        """The settings by which the run that is named would be steered."""
        for folder in filter(cls.is_argument, given.get("run", ())):
            return partial(print_settings, cls._settings(load(folder), given))
        return None

    @classmethod
    def _settings(cls, run: Run, given: Given) -> PolicyRunConfig:
        """The settings by which a run is steered. Raises ValueError for one that is the run's own."""
        for key in given:
            if key in OF_RUN:
                raise ValueError(f"{named(key)} is as the steered run has it; leave it out")
        return cls.configured(steered_settings(run, " ".join(given.get("dataset", ()))), given)
