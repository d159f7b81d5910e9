"""`gentraj finetune`: makes a run better by what it plays in its environment, and never acts worse than it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from pydantic import PositiveFloat

from gentraj.envs.evaluation.scoring import bootstrap_interval

from ..config import settings
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.kinds.loading import load
from ..runs.learn.finetuning import COMPARED, finetune_settings, gain, learn
from .options import Device, Given, RunPath, Training, load_trained, print_settings
from .train import fresh_folder, next_command


@settings
class Finetune(Training):
    """Learn online to act better than a trained policy or planner, of any model, and write the result as a new run.

    Its weights are frozen. In each state it proposes a few actions; each gets a small edit that is learned, and the
    best of all by an ensemble of critics is taken. The critics learn from the run's dataset and from what is played.
    The new run acts as the old one does until something proves better: every --check-every steps, the newest behaviour
    plays episodes from which nothing is learned, and it has to earn more than what acted before, and surely more than
    the start: all checks together accept what is no better in 5 % of trainings at most.
    Every setting is an option, such as --policy.edit.bound 0.2; `gentraj finetune RUN --help` lists them.

    Examples: gentraj finetune runs/bc-flow --run-dir runs/tuned
              gentraj finetune runs/bc-flow --steps 20000 --updates 2 --seed 1 --run-dir runs/tuned
              gentraj finetune runs/bc-flow --minutes 30 --run-dir runs/tuned
              gentraj finetune runs/bc-flow --run-dir runs/tuned --resume
    """

    SHORT: ClassVar[Mapping[str, str]] = {"out": "run_dir"}

    run: RunPath
    """The folder of a policy or a planner whose dataset is still available."""
    run_dir: Annotated[Path, tyro.conf.arg(aliases=("--out",))]
    """Folder that the new run is written to."""
    resume: bool = False
    """Continue an interrupted fine-tuning in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    minutes: PositiveFloat | None = None
    """Begin no round of episodes after so many minutes. What is learned so far is saved, and --resume goes on."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the run's own."""
    device: Device = None

    def __call__(self) -> None:
        start = load_trained(self.run, self.device)
        config = self.configured(finetune_settings(start), self.given)
        if not self.resume:
            fresh_folder(self.run_dir, "--resume")
        tuned = learn(start, config, self.run_dir, env=self.env_id, minutes=self.minutes, resume=self.resume,
                      device=pick_device(self.device))
        before_E, after_E = gain(start, tuned, config.seed, self.env_id)
        low, high = bootstrap_interval(after_E - before_E)
        policy: Any = tuned.policy
        say(f"the run in {self.run_dir} acts by {policy.acts}; in {COMPARED} other episodes, the mean return is "
            f"{after_E.mean():.4g}, and {before_E.mean():.4g} before: a gain of {(after_E - before_E).mean():.4g} "
            f"[{low:.4g}, {high:.4g}]")
        print_saved(next_command(tuned, self.run_dir))

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None] | None:
        """The settings by which the run that is named would learn."""
        for folder in filter(cls.is_argument, given.get("run", ())):
            return partial(print_settings, cls.configured(finetune_settings(load(folder)), given))
        return None
