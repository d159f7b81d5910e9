"""`gentraj distill`: a student that decides as a trained run does, many times faster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from ..config import OneOf, settings
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.learn.distillation import METHODS, distill
from .options import Device, Given, RunPath, Training, load_trained, print_settings
from .train import fresh_folder, next_command

MethodName = Annotated[str, OneOf(METHODS)]


@settings
class Distill(Training):
    """Train a student of a run, its teacher: a run that decides much faster, and that every other command takes.

    Every setting of the method is an option, such as --student.steps 1 or --steps 5000 (short for --training.steps);
    `gentraj distill --method METHOD --help` lists them.

    Examples: gentraj distill runs/umaze --method decision --run-dir runs/umaze-student
              gentraj distill runs/umaze --method decision --run-dir runs/umaze-student --resume
              gentraj distill runs/bc --method decision --run-dir runs/bc-student --episodes 100 --steps 10000
              gentraj distill runs/umaze --method reflow --run-dir runs/umaze-reflow --student.steps 1
    """

    run: RunPath
    """The folder of the teacher, as `gentraj train` writes it."""
    run_dir: Path
    """Folder that the student is written to."""
    method: MethodName
    """What the student is and how it learns."""
    resume: bool = False
    """Continue an interrupted distillation in --run-dir; the result is the same, bit for bit, as without the
    interruption."""
    env_id: str | None = None
    """The environment, a Gymnasium id or a task name; by default the teacher's own."""
    device: Device = None

    def __call__(self) -> None:
        config = self.configured(METHODS[self.method].config, self.given)
        if not self.resume:
            fresh_folder(self.run_dir, "--resume")
        student = distill(load_trained(self.run, self.device), config, self.run_dir, env_id=self.env_id,
                          resume=self.resume, device=pick_device(self.device))
        say(f"trained {student.step} steps; the student is in {self.run_dir}")
        print_saved(next_command(student, self.run_dir))

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None]:
        """The settings of the method that is named, or else what all methods are."""
        for name in given.get("method", ()):
            if name in METHODS:
                return partial(print_settings, cls.configured(METHODS[name].config, given))
        return partial(print, "methods:", *(f"  {name:12} {each.about}" for name, each in METHODS.items()), sep="\n")
